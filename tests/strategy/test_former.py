"""Strategies of other packages that derive from former base classes."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.tiny import prompt, tiny_llava

import tokenprune
from tokenprune import FastV, Selection, UnsupportedError
from tokenprune.strategy import DenoisingStage, DenoisingStrategy, Stage, TextScoreStrategy


@dataclass(frozen=True)
class ByText(TextScoreStrategy):
    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return (Stage(1, self.keep_ratio, self.keep),)

    def score_at(self, tokens: Any) -> Any:
        return tokens.attention.from_last()


@pytest.mark.parametrize("cells", [None, 2])
def test_by_the_attention_of_the_text(cells: int | None) -> None:
    model, kept = tiny_llava(), []
    for strategy in (ByText(keep_ratio=0.3, cells=cells), FastV(keep_ratio=0.3, cells=cells, layer=1)):
        with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
            model(**prompt([1, 2]))
        kept.append([image.kept_at(1).tolist() for image in handle.report.images])
    assert kept[0] == kept[1]


def test_between_denoising_steps() -> None:
    @dataclass(frozen=True)
    class Late(DenoisingStrategy):
        @property
        def step_stages(self) -> tuple[DenoisingStage, ...]:
            return (DenoisingStage(4, self.keep_ratio, self.keep),)

        def select(self, tokens: Any) -> Selection:
            return Selection.all(tokens.n_visual, tokens.features.device)

    with pytest.raises(UnsupportedError, match="attention of the tokens that a block diffusion model denoises"):
        tokenprune.patch(tiny_llava(), Late())
