"""VisionZip (https://arxiv.org/abs/2412.04467)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from tokenprune.checks import check_share
from tokenprune.selection import Merge, Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import most_similar, unit_vectors
from tokenprune.strategy import AttentionStrategy, MergingStrategy, Record, ScoreStrategy
from tokenprune.tokens import VisualTokens


@register_strategy("visionzip")
@dataclass(frozen=True)
class VisionZip(AttentionStrategy, ScoreStrategy, MergingStrategy):
    """Keeps the dominant visual tokens, which the CLS token attends to most, and merges the others into a few
    contextual tokens, by the similarity of their keys.

    Contextual tokens are taken at even steps from the tokens that are not dominant. Each keeps its place, and the mean
    of the tokens whose keys are most similar to its own is added to it.

    contextual: the contextual share of the budget. The paper uses 10 of 64 tokens, and the same share of 128 and 192.
    layer: the encoder layer of attention and keys; None is the one whose output the projector gets.
    cells: take the dominant tokens within cells of the grid, see `ScoreStrategy`. The paper has no cells.
    mass, least: keep what each image needs by the attention, see `ScoreStrategy`. The paper has a fixed budget.

    Without a CLS token, the tokens that receive the most attention are dominant, as in the paper. Deviations from the
    released code: tokens are merged after the projector; a patch takes the place of the CLS token, which is among the
    released code's dominant tokens but does not reach the language model; contextual tokens stay in raster order
    instead of following the dominant ones; the tiles of an image compete, unless budget_per is "tile", where the code
    treats each as an image. Newline tokens are not merged.
    """

    record: ClassVar[Record] = Record(
        keeps="the tokens that the CLS token attends to most; merges the rest into a few tokens",
        source="paper: 54 dominant and 10 contextual tokens",
        published={"contextual": 10 / 64},
        waits=(2, 1),
        measured=("layer=-2",),
        claimed="55.5",
        best_with_cls=True,
    )

    contextual: float = 10 / 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("VisionZip", "contextual", self.contextual, "a share of the budget")

    def select(self, tokens: VisualTokens) -> Selection:
        scores = tokens.vision_attention.cls_or_mean()
        n_kept = self.n_to_keep(scores)
        n_contextual = round(self.contextual * n_kept)
        order = self.ranked(scores, max(1, n_kept - n_contextual), tokens)
        if n_contextual == 0 or n_kept == tokens.n_visual:
            return Selection.first(order, n_kept, scores)
        dominant, others = order[: n_kept - n_contextual], order[n_kept - n_contextual :]
        patches, fill = others, others[:0]
        if tokens.n_newlines:
            newline = tokens.is_newline[others]
            patches, fill = others[~newline], others[newline]
        if not len(patches):
            return Selection.first(order, n_kept, scores)
        contextual, merging = split_evenly(patches.sort().values, n_contextual)
        # Where there are too few patches, newline tokens fill the budget.
        kept = torch.cat([dominant, contextual, fill[: n_contextual - len(contextual)]]).sort().values
        keys = unit_vectors(tokens.vision_attention.patch_keys().mean(1))
        nearest = most_similar(keys[merging], keys[contextual])[1][:, 0]
        places = torch.searchsorted(kept, contextual)
        return Selection(kept, tokens.n_visual, scores, add_means(places, contextual, nearest, merging))


def split_evenly(left: Int[Tensor, " left"], count: int) -> tuple[Int[Tensor, " contextual"], Int[Tensor, " merging"]]:
    """Split the remaining tokens into `count` at even steps from the first, and the others."""
    n, step = min(count, len(left)), max(1, len(left) // count)
    steps = left[: n * step].view(n, step)
    return steps[:, 0].contiguous(), torch.cat([steps[:, 1:].flatten(), left[n * step :]])


def add_means(
    places: Int[Tensor, " contextual"],
    contextual: Int[Tensor, " contextual"],
    nearest: Int[Tensor, " merging"],
    merging: Int[Tensor, " merging"],
) -> Merge | None:
    """Add to each contextual token the mean of the tokens merged into it; None if there are none to merge."""
    if not len(merging):
        return None
    counts = torch.zeros_like(contextual).index_add(0, nearest, torch.ones_like(nearest))
    weights = torch.cat([torch.ones_like(places, dtype=torch.float32), 1 / counts[nearest].float()])
    return Merge(torch.cat([places, places[nearest]]), torch.cat([contextual, merging]), weights)
