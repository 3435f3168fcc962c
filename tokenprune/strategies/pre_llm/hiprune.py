"""HiPrune (https://arxiv.org/abs/2508.00553)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_layer, check_share
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import AttentionStrategy, Record
from tokenprune.tokens import Layout, VisionAttention, VisualTokens


@register_strategy("hiprune")
@dataclass(frozen=True)
class HiPrune(AttentionStrategy):
    """Keeps anchors, the patches that receive most attention in a middle encoder layer; buffers, their neighbours on
    the left, right, above and below; and registers, which fill the budget: those that receive most in a late layer.

    alpha: the share of the budget for anchors and buffers; a fifth of it, rounded, are anchors.
    object_layer: the middle layer, counted like a Python index. None is at 3/8 of the depth, which is the released
        code's for LLaVA (8 of 24) and, as the nearest that attends to whole images, for Qwen2.5-VL (15 of 32).
    layer: the late layer; None is the one whose output the projector gets.

    As in the released code, the neighbours of a token at the left or right edge include the end of the row above or the
    start of the row below, and the CLS token's attention counts too. Deviations: it gives each tile of an image the
    same budget, here tiles compete unless budget_per is "tile"; for Qwen2.5-VL, its registers may repeat buffers, so
    that it keeps fewer tokens.
    """

    record: ClassVar[Record] = Record(
        keeps=("the most attended patches of a middle encoder layer with their neighbours, and those of a late layer"),
        published={"alpha": 0.1},
        source="released commands",
        waits=(3, 2),
        unmeasured="is newer than the measurements",
    )

    needs: ClassVar[frozenset[str]] = frozenset({"vision_attention", "early_attention"})
    whole_image: ClassVar[bool] = True

    alpha: float = 0.1
    object_layer: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("HiPrune", "alpha", self.alpha, "a share of the budget")
        check_layer("HiPrune", self.object_layer, "an encoder layer", 8, "object_layer")

    @property
    def early_layer(self) -> int | None:
        return self.object_layer

    @property
    def reads_grid(self) -> bool:
        return True

    def select(self, tokens: VisualTokens) -> Selection:
        n_kept, late = self.budget(tokens.n_visual), received(tokens.vision_attention)
        n_anchors = min(round(n_kept * self.alpha / 5), n_kept // 5)
        early = received(tokens.early_attention).masked_fill(tokens.is_newline, -torch.inf)
        anchors = early.argsort(descending=True, stable=True)[:n_anchors]
        near = neighbours(tokens.layout).to(anchors.device)[anchors]
        chosen = late.index_fill(0, torch.cat([anchors, near.flatten()]), torch.inf)
        return Selection.first(chosen.argsort(descending=True, stable=True), n_kept, late)


def received(attention: VisionAttention) -> Float[Tensor, " visual"]:
    """The attention that each visual token receives from all tokens of its tile, the CLS token's included."""
    from_patches = attention.received()
    return from_patches + attention.cls_row() if attention.n_prefix else from_patches


def neighbours(layout: Layout) -> Int[Tensor, "visual 4"]:
    """The visual tokens one place before and after each one, and a row above and below, in the order of its frame's
    patches, in which newline tokens are left out; beyond the ends, the first and last. On the CPU."""
    patches = (~layout.newline_mask()).nonzero()[:, 0]
    places, rows = layout.coordinates()[patches], layout.rows()[patches]
    _, frame, sizes = places[:, :2].unique_consecutive(dim=0, return_inverse=True, return_counts=True)
    ends, widths = sizes.cumsum(0)[frame], rows.bincount()[rows]
    steps = torch.stack([-torch.ones_like(widths), torch.ones_like(widths), -widths, widths], 1)
    here = torch.arange(len(patches), device=patches.device)
    moved = (here[:, None] + steps).clamp((ends - sizes[frame])[:, None], ends[:, None] - 1)
    return patches.new_zeros(layout.n_visual, 4).index_copy(0, patches, patches[moved])
