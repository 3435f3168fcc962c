"""If all images are one row of patches, a TowerStrategy reads the same attention of a layer as an AttentionStrategy
does after the tower."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from engine.tower.test_rows_and_squares import NAMES, model_of, prompt_of
from torch import Tensor

import tokenprune
from tokenprune import Selection
from tokenprune.strategy import AttentionStrategy, TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens


@dataclass(frozen=True)
class InTower(TowerStrategy):
    """Keeps all tokens, and records what it reads from every layer, image by image."""

    read: dict[int, list[Tensor]] = field(default_factory=dict)

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return tuple(range(n_layers))

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        self.read.setdefault(tokens.layer, []).append(tokens.attention.received())
        return Selection.all(tokens.n_left, tokens.left.device)

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)


@dataclass(frozen=True)
class AfterTower(AttentionStrategy):
    """Records the same for one layer."""

    read: list[Tensor] = field(default_factory=list)

    def select(self, tokens: VisualTokens) -> Selection:
        self.read.append(tokens.vision_attention.received())
        return Selection.all(tokens.n_visual, tokens.features.device)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_reads_alike_between_the_layers_and_after_the_tower(name: str) -> None:
    model, inputs = model_of(name), prompt_of(name, "image")
    between = InTower(keep_ratio=1.0)
    with torch.no_grad(), tokenprune.patch(model, between):
        model(**inputs)
    assert between.read
    for layer, found in between.read.items():
        after = AfterTower(keep_ratio=1.0, layer=layer)
        with torch.no_grad(), tokenprune.patch(model, after):
            model(**inputs)
        torch.testing.assert_close(torch.cat(found), torch.cat(after.read), rtol=0, atol=1e-6)
        uniform = torch.cat([one.mean().expand(len(one)) for one in after.read])
        assert (torch.cat(after.read) - uniform).abs().max() > 1e-5
