"""PAR: Pruning All-Rounder (https://arxiv.org/abs/2412.06458), without its trained router."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, ScoreStrategy, Stage, StagedStrategy
from tokenprune.strategy.skipping import checked_skip, layers_to_skip
from tokenprune.strategy.stage import check_one_stage, one_stage
from tokenprune.tokens import StageTokens


@register_strategy("par")
@dataclass(frozen=True)
class PAR(StagedStrategy, ScoreStrategy):
    """Prunes visual tokens and decoder layers: keeps, from decoder layer `layer` on, the visual tokens that the text
    after the image attends to most, and skips the layers of `skip`.

    keep_ratio, keep, layer, average: see `tokenprune.strategy.stage.one_stage`. keep_ratio counts visual tokens
        only, whichever layers are skipped.
    skip: the decoder layers to skip, or how many, see `tokenprune.strategy.skipping`.
    cells: rank within cells of the grid, see `ScoreStrategy`. The paper has no cells.

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

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True

    layer: int = 2
    average: bool = False
    skip: int | tuple[int, ...] | list[int] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_stage(self)
        object.__setattr__(self, "skip", checked_skip("PAR", self.skip))

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return one_stage(self, n_layers)

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        return layers_to_skip("PAR", self.skip, n_layers)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return self.best(tokens.attention.from_text(), stage.budget(tokens.n_visual), tokens)
