"""EfficientVLA: visual tokens, layers and cached actions (https://arxiv.org/abs/2506.10100)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_count, check_share
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.strategy import Record, ScoreStrategy, Stage, StagedStrategy
from tokenprune.strategy.skipping import checked_skip, layers_to_skip
from tokenprune.strategy.stage import check_one_stage, one_stage
from tokenprune.tokens import StageTokens

#: The paper computes the action expert in every fifth step.
REUSE = 5


@register_strategy("efficientvla")
@dataclass(frozen=True)
class EfficientVLA(StagedStrategy, ScoreStrategy):
    """Keeps, from decoder layer `layer` on, a few key tokens that the text attends to most, then further relevant
    tokens, and the tokens that are least similar to every key token.

    keep_ratio, keep, layer, average: see `tokenprune.strategy.stage.one_stage`. keep_ratio counts visual tokens
        only, whichever layers are skipped.
    key: the number of key tokens.
    alpha: the share of the remaining budget that goes to relevance; the rest goes to diversity.
    cells: rank the relevant tokens within cells of the grid, see `ScoreStrategy`. The paper has no cells.
    skip: the decoder layers to skip, or how many, see `tokenprune.strategy.skipping`: the paper's layer removal, with
        the ranking of `tokenprune layers`. In a robot policy they are removed from the language model and from the
        action expert, each of whose layers reads the keys and values of the same layer of the language model.
    reuse: in robot policies (PI0, PI0.5), the action expert's attention and MLPs are computed once in this many
        denoising steps, and their outputs are reused in between. 1 computes them in every step. None is the paper's 5
        in a policy; other models have no such steps, and refuse a number above 1.

    Deviations: relevance is the attention that the text after the image pays to a visual token, averaged over heads and
    text tokens; the paper writes the attention from the visual token to the text, which a causal model does not have
    (a policy's prefix does; the direction is the same there, so that a strategy means one thing in all models).
    Diversity is 1 - max cosine to the key tokens, of the hidden states on entry to the layer; the paper does not name
    the features. The paper prunes from its second layer on, which is layer=1 if that layer already sees fewer tokens,
    and layer=2, the default, if it is the last that sees all. The first and last two layers are never removed. The
    paper's sparse MLPs are not included.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "from decoder layer 2 on, the tokens that the text attends to most, and those least like them; `skip` "
            "removes layers, and in robot policies `reuse` computes the action expert less often"
        ),
        source="paper: K_key, alpha, and the interval of cached features, REUSE",
        published={"key": 4, "alpha": 0.5, "layer": 2, "reuse": REUSE},
        stages=([2], [2], [2]),
        waits=(2, 1),
    )

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True

    layer: int = 2
    average: bool = False
    key: int = 4
    alpha: float = 0.5
    skip: int | tuple[int, ...] | list[int] = field(default=(), kw_only=True)
    reuse: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_stage(self)
        object.__setattr__(self, "skip", checked_skip("EfficientVLA", self.skip))
        check_count("EfficientVLA", "key", self.key)
        if self.reuse is not None:
            check_count("EfficientVLA", "reuse", self.reuse)
        check_share("EfficientVLA", "alpha", self.alpha)

    @property
    def recompute_every(self) -> int:
        return REUSE if self.reuse is None else self.reuse

    @property
    def requires_expert(self) -> bool:
        return self.reuse is not None and super().requires_expert

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return one_stage(self, n_layers)

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        return layers_to_skip("EfficientVLA", self.skip, n_layers)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        relevance, n_kept = tokens.attention.from_text(), stage.budget(tokens.n_visual)
        n_key = min(self.key, n_kept)
        n_relevant = n_key + int(self.alpha * (n_kept - n_key))
        order = self.ranked(relevance, n_relevant, tokens)
        kept = relevant_and_diverse(order, tokens.features, n_kept, n_key, n_relevant)
        low, high = relevance.aminmax()
        scores = (relevance - low) / (high - low).clamp(min=torch.finfo(relevance.dtype).tiny)
        return Selection(kept, tokens.n_left, scores.detach())


def relevant_and_diverse(
    order: Int[Tensor, " left"], features: Float[Tensor, "left width"], n_kept: int, n_key: int, n_relevant: int
) -> Int[Tensor, " kept"]:
    """Return, ascending, the first `n_relevant` tokens of an order by relevance and, up to `n_kept` in all, the others
    that are least similar to all of the first `n_key`."""
    directions = unit_vectors(features)
    diversity = 1 - (directions @ directions[order[:n_key]].T).amax(1)
    diversity[order[:n_relevant]] = -torch.inf  # already selected
    diverse = diversity.argsort(descending=True, stable=True)[: n_kept - n_relevant]
    return torch.cat([order[:n_relevant], diverse]).sort().values
