"""HoloV (https://arxiv.org/abs/2510.02912)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_count
from tokenprune.selection import Selection, split
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import AttentionStrategy, Record
from tokenprune.tokens import VisualTokens
from tokenprune.tokens.cells import rank_within


@register_strategy("holov")
@dataclass(frozen=True)
class HoloV(AttentionStrategy):
    """Splits an image into crops, gives each a share of the budget, and keeps the tokens of each crop that the CLS
    token attends to most.

    A crop's share is that of the attention m_c that its average token receives: the budget times m_c / sum_c m_c. Crops
    are strips: runs of equally many tokens in raster order.

    crops: the number of crops; the released code has 16.
    layer: the encoder layer of the attention; None is the one whose output the projector gets.

    Follows the released code; the paper mentions neither its strips nor its choice within a crop by attention alone.
    The code adds to a crop's score its tokens' diversity, but scaled to the crop's mean attention, so that all
    crops' scores grow by the same factor and the shares stay; it is left out here. Deviations: tokens that do not fit
    into a crop go to the best tokens of all others, where the code pads with zeros; newline tokens lie in crops, where
    the code drops them; the budget is not fixed at 64. Without a CLS token, the attention that a patch receives
    from all patches is used. The paper's visual context refetching is not public.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "the most attended tokens in each of 16 strips, which share the budget in proportion to their "
            "attention; its code passes them on crop by crop, here they stay in raster order"
        ),
        source="released code: num_patches",
        published={"crops": 16},
        waits=(4, 3),
        measured=("layer=-2",),
        claimed="55.4",
        best_with_cls=True,
    )

    crops: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("HoloV", "crops", self.crops)

    def select(self, tokens: VisualTokens) -> Selection:
        scores = tokens.vision_attention.cls_or_mean()
        order = order_by_crop(scores, min(self.crops, tokens.n_visual), n_kept := self.budget(tokens.n_visual))
        return Selection.first(order, n_kept, scores)


def order_by_crop(scores: Float[Tensor, " visual"], n_crops: int, n_kept: int) -> Int[Tensor, " visual"]:
    """Order tokens by score, those within their crop's share of `n_kept` before all others.

    Shares are rounded down, and what is left goes one by one to the crops with the largest shares. The first crops are
    one token longer than the others if the tokens do not divide evenly. If no score is above 0, as after a step that
    kept only tokens nothing attends to, the crops' shares are equal.
    """
    lengths = sorted(split(len(scores), [1] * n_crops), reverse=True)
    crop = torch.arange(n_crops, device="cpu").repeat_interleave(torch.tensor(lengths, device="cpu")).to(scores.device)
    means = scores.new_zeros(n_crops).scatter_reduce(0, crop, scores, "mean", include_self=False)
    exact = means / means.sum().clamp(min=torch.finfo(means.dtype).tiny) * n_kept
    share = exact.floor().long()
    by_size = exact.argsort(descending=True, stable=True).argsort()
    share += by_size < n_kept - share.sum()
    fits = rank_within(scores, crop) < share[crop]
    order = scores.argsort(descending=True, stable=True)
    return order[fits[order].int().argsort(descending=True, stable=True)]
