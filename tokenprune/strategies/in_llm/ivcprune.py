"""IVC-Prune (https://arxiv.org/abs/2602.03060)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_count, check_share
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, Stage, StagedStrategy
from tokenprune.tokens import StageTokens
from tokenprune.tokens.attention import block_length

#: The released settings that are not half of the decoder layers: of DeepSeek-VL2-small, and of Qwen2.5-VL's 7B and 3B.
LAYERS = {27: 17, 28: 16, 36: 22}
#: The share of an image's tokens that the question alone chooses.
SEEDS = 0.01


@register_strategy("ivcprune")
@dataclass(frozen=True)
class IVCPrune(StagedStrategy):
    """Keeps, from the middle of the language model on, visual tokens at positions that serve as implicit visual
    coordinates, and those whose values resemble the question's.

    The coordinates are the tokens whose rotary angles have the largest mean cosine, and those with the largest mean
    sine. A token resembles the question by the softmax, over the image, of the products of its value vectors with those
    of the text after the image in the layer before, averaged over heads and text. The best 1 % of the image are
    seeds, which are kept, and the rest of the budget goes to the tokens that resemble question and seeds most.

    keep_ratio, keep: the budget from `layer` on; the layers before it see every visual token.
    positions: the share of the budget for each of the two kinds of coordinates: 10 % of all tokens where half of them
        are kept, as in the released code for Qwen2.5-VL.
    layer: the decoder layer, counted from 0, that the stage starts at; None is the released setting for models of this
        depth: 16 of 28 and 22 of 36 for Qwen2.5-VL, 17 of 27 for DeepSeek-VL2-small, and 16 of 32 for LLaVA-1.5 and
        InternVL2.5; otherwise half. (Qwen2-VL's is 2 of 28.)

    Follows the released code for Qwen2.5-VL, whose budget is exact; that for LLaVA keeps a fifth by resemblance, over
    all tokens instead of the image's, and 5 % of each kind of coordinates. Deviations: layers before the stage keep all
    tokens in their caches, where the code cuts all of them but the first layer's afterwards; the two tokens after the
    image, which the code leaves out, count as text; with M-RoPE, cosines and sines are those that a token is rotated
    by, where the code averages those of all three components.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "from about halfway through the decoder, positions that serve as coordinates, and tokens whose values "
            "resemble the question's"
        ),
        source="released code for Qwen2.5-VL: a tenth of all tokens of each kind, of a half",
        published={"positions": 0.2},
        stages=([16], [16], [22]),
        waits=(2, 1),
    )

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True

    positions: float = 0.2
    layer: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("IVCPrune", "positions", self.positions)
        if self.positions > 0.5:
            raise SettingError(
                f"IVCPrune: positions={self.positions!r} is the share of each of two kinds of positions, so more than "
                f"0.5 exceeds the budget. Write positions=0.2, for instance."
            )
        if self.layer is not None:
            check_count("IVCPrune", "layer", self.layer)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        layer = LAYERS.get(n_layers, max(1, n_layers // 2)) if self.layer is None else self.layer
        return (Stage(layer, self.keep_ratio, self.keep),)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        attention, n_kept = tokens.attention, stage.budget(tokens.n_visual)
        if attention.values is None or attention.rotation is None:
            raise PruningError("IVCPrune needs the values and the rotation of the decoder layer before its stage.")
        n_coordinates, n_seeds = round(self.positions * n_kept), max(1, round(SEEDS * tokens.n_left))
        resemblance = value_similarity(attention.values, attention.text, attention.visual)
        seeds = best(resemblance, n_seeds)
        n_text = len(attention.text)
        from_seeds = value_similarity(attention.values, attention.visual[seeds], attention.visual)
        scores = (resemblance * n_text + from_seeds * n_seeds) / (n_text + n_seeds)
        cosines, sines = attention.rotation[:, attention.visual].float().mean(-1)
        first = torch.cat([seeds, best(cosines, n_coordinates), best(sines, n_coordinates)])
        order = scores.argsort(descending=True, stable=True)
        must = torch.zeros_like(order).index_fill(0, first, 1)
        return Selection.first(order[must[order].argsort(descending=True, stable=True)], n_kept, scores)


def best(scores: Float[Tensor, " left"], count: int) -> Int[Tensor, " count"]:
    """Return the indices of the `count` highest scores; ties go to the first."""
    return scores.argsort(descending=True, stable=True)[:count]


def value_similarity(
    values: Float[Tensor, "heads tokens width"], rows: Int[Tensor, " rows"], visual: Int[Tensor, " left"]
) -> Float[Tensor, " left"]:
    """Return the softmax over visual tokens j of v_i . v_j / sqrt(width), averaged over heads and over i in `rows`.
    Computed in blocks of rows."""
    values = values.detach().float()
    keys, total = values[:, visual].transpose(1, 2), values.new_zeros(len(visual))
    for block in rows.split(block_length(len(values) * len(visual), rows.device)):
        weights = (values[:, block] @ keys / values.shape[-1] ** 0.5).softmax(-1)
        total += weights.mean(0).sum(0)
    return total / len(rows)
