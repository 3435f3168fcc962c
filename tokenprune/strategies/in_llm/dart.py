"""DART: duplication-aware reduction of tokens (https://arxiv.org/abs/2502.11494)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_count
from tokenprune.selection import Selection, split
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.strategy import Record, Stage, StagedStrategy
from tokenprune.strategy.stage import check_one_stage, one_stage
from tokenprune.tokens import StageTokens


@register_strategy("dart")
@dataclass(frozen=True)
class DART(StagedStrategy):
    """Keeps, from decoder layer `layer` on, a few pivots and the visual tokens that duplicate them least.

    The pivots are the visual and the text tokens whose keys in layer `layer` - 1 have the largest L1 norms. Each in
    turn takes an equal share of the rest of the budget: the remaining visual tokens whose hidden states have the lowest
    cosine to its own. No attention is computed, so the choice costs little with any attention kernel.

    keep_ratio, keep, layer, average: see `tokenprune.strategy.stage.one_stage`.
    pivots, text_pivots: the numbers of visual and of text pivots. Text pivots do not count against the budget.

    Deviations from the released code: visual pivots take their shares first, then text pivots, each by descending norm
    (the code iterates over a Python set); the budget is exact, where the code keeps up to seven tokens fewer and the
    visual pivots on top; cosines are of the hidden states, without the model's last norm; position IDs are kept.
    """

    record: ClassVar[Record] = Record(
        keeps="from decoder layer 2 on, a few pivots and the tokens that duplicate them least",
        source="released scripts: pivot_image_token, pivot_text_token, pruned_layer",
        published={"pivots": 4, "text_pivots": 4, "layer": 2},
        stages=([2], [2], [2]),
        waits=(2, 1),
        claimed="54.4",
    )

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True

    layer: int = 2
    average: bool = False
    pivots: int = 4
    text_pivots: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_stage(self)
        check_count("DART", "pivots", self.pivots)
        check_count("DART", "text_pivots", self.text_pivots)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return one_stage(self, n_layers)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        attention, n_kept = tokens.attention, stage.budget(tokens.n_visual)
        norms = attention.keys.float().abs().sum((0, 2))
        visual, text = norms[attention.visual], norms[attention.text]
        own = visual.argsort(descending=True, stable=True)[: min(self.pivots, n_kept)]
        other = text.argsort(descending=True, stable=True)[: self.text_pivots]
        chosen = least_similar(unit_vectors(tokens.features), own, unit_vectors(tokens.text_features)[other], n_kept)
        return Selection(chosen.sort().values, tokens.n_left, visual)


def least_similar(
    vectors: Float[Tensor, "left width"], own: Int[Tensor, " own"], other: Float[Tensor, "other width"], n_kept: int
) -> Int[Tensor, " kept"]:
    """Choose the vectors `own`, then for each of them and each of `other` an equal share of the remaining vectors with
    the lowest cosine to it."""
    pivots = torch.cat([vectors[own], other])
    chosen, free = [own], torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
    free[own] = False
    for pivot, share in zip(pivots, split(n_kept - len(own), [1] * len(pivots)), strict=True):
        cosines = (vectors @ pivot).masked_fill(~free, torch.inf)
        chosen.append(cosines.argsort(stable=True)[:share])
        free[chosen[-1]] = False
    return torch.cat(chosen)
