"""What a strategy reads of a visual token after the first encoder layer is of the token's own square of patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from helpers.families import FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import Selection
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens

SIDE = 6  # patches
#: The keys and values of every tile.
seen: list[tuple[Tensor, Tensor]] = []


@dataclass(frozen=True)
class Reading(TowerStrategy):
    """Drops nothing, and appends what it reads to `seen`."""

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return (0,)

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        seen.append((tokens.keys, tokens.values))
        return Selection.all(tokens.n_left, tokens.left.device)

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)


def test_keys_and_values_are_those_of_the_tokens_own_patches() -> None:
    model, inputs = FAMILIES["internvl"].build(), FAMILIES["internvl"].prompt([1])
    attention = model.model.vision_tower.encoder.layer[0].attention
    projected: dict[str, Tensor] = {}
    for name in ("k_proj", "v_proj"):
        module = getattr(attention, name)
        module.register_forward_hook(lambda module, args, output, name=name: projected.update({name: output}))
    seen.clear()
    with torch.no_grad(), tokenprune.patch(model, Reading(keep_ratio=1.0)):
        model(**inputs)
    half, n_heads = SIDE // 2, model.config.vision_config.num_attention_heads
    assert len(seen) == len(projected["v_proj"])
    for tile, (keys, values) in enumerate(seen):
        k, v = (
            part[tile, 1:].view(half, 2, half, 2, -1).transpose(1, 2).reshape(half**2, 4, n_heads, -1)
            for part in (projected["k_proj"], projected["v_proj"])
        )
        torch.testing.assert_close(keys, k.mean(2).flatten(1))
        torch.testing.assert_close(values[:, 1:], v.mean(1).transpose(0, 1))
        assert torch.equal(values[:, 0], projected["v_proj"][tile, 0].view(n_heads, -1))  # CLS
