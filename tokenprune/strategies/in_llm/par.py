"""PAR: Pruning All-Rounder (https://arxiv.org/abs/2412.06458), without its trained router."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import OneStage, Record, SkippingStrategy, TextScoreStrategy
from tokenprune.tokens import StageTokens


@register_strategy("par")
@dataclass(frozen=True)
class PAR(OneStage, TextScoreStrategy, SkippingStrategy):
    """Prunes visual tokens and decoder layers: keeps, from decoder layer `layer` on, the visual tokens that the text
    after the image attends to most, and skips the layers of `skip`.

    skip: the decoder layers to skip, see `SkippingStrategy`.
    cells: rank within cells of the grid, see `RankedStrategy`. The paper has no cells.

    Deviations: the paper trains a router that decides on tokens and layers together, for every sample; this strategy
    has no trained router. Tokens are ranked by the attention of layer `layer` - 1, averaged over heads and then over
    the text after the image; layers are ranked once per model, by how little they change their input. The released code
    masks tokens and still computes skipped layers. Here, tokens are dropped and kept ones keep their position IDs, and
    skipped layers cost and cache nothing, in prefill and decode.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "from decoder layer 2 on, the tokens that the text after the image attends to most; can skip decoder "
            "layers; the paper trains a router for both, this has none"
        ),
        source="released code: layers 0 and 1 see everything",
        published={"layer": 2},
        stages=([2], [2], [2]),
        waits=(2, 1),
    )

    def score_at(self, tokens: StageTokens) -> Float[Tensor, " left"]:
        return tokens.attention.from_text()
