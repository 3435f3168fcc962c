"""LLaVA-PruMerge and PruMerge+ (https://arxiv.org/abs/2403.15388)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.checks import check_count, check_flags
from tokenprune.errors import SettingError
from tokenprune.selection import Merge, Selection
from tokenprune.sequence.packing import true_indices
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import most_similar, unit_vectors
from tokenprune.strategy import AttentionStrategy, MergingStrategy, Record, ScoreStrategy
from tokenprune.tokens import VisualTokens


@register_strategy("prumerge")
@dataclass(frozen=True)
class PruMerge(AttentionStrategy, ScoreStrategy, MergingStrategy):
    """Keeps the visual tokens that the CLS token attends to most, and adds to each the tokens with the most similar
    keys, weighted by the attention that those receive.

    plus: PruMerge+. Attention selects only its outliers, more than 1.5 interquartile ranges above the third quartile;
        the rest of the budget is spread evenly over the other patches in raster order.
    neighbours: the number of tokens that are added to each kept one.
    layer: the encoder layer of attention and keys; None is the one whose output the projector gets. The released code
        uses the last: -1.
    cells: rank within cells of the grid, see `ScoreStrategy`; not with `plus`, whose outliers are those of the whole
        image. The paper has no cells.
    mass, least: keep what each image needs by the attention, see `ScoreStrategy`.

    Without a CLS token, the attention that a patch receives from all patches is used. Deviations from the released
    code: the budget is fixed, instead of the number of outliers; attention is the mean over heads, instead of one
    softmax over their whole width; tokens are merged after the projector; there is no extra token that sums up the
    dropped ones; `plus` fills the budget evenly, where the code adds every n-th patch, about three for each outlier.
    Newline tokens are not merged.
    """

    record: ClassVar[Record] = Record(
        keeps="the tokens that the CLS token attends to most, each merged with similar ones; `plus=True` is PruMerge+",
        source="released code",
        published={"plus": False, "neighbours": 32},
        waits=(2, 1),
        measured=("layer=-2",),
        best_with_cls=True,
    )

    plus: bool = False
    neighbours: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("PruMerge", "neighbours", self.neighbours, "a count of tokens")
        check_flags("PruMerge", plus=self.plus)
        if self.plus and self.cells is not None:
            raise SettingError("PruMerge: plus=True spreads tokens evenly already. Leave out cells, or plus.")

    def select(self, tokens: VisualTokens) -> Selection:
        scores = tokens.vision_attention.cls_or_mean()
        n_kept, n_patches = self.n_to_keep(scores), tokens.n_visual - tokens.n_newlines
        order = self.ranked(scores, n_kept, tokens)
        patches = true_indices(~tokens.is_newline, n_patches)
        if self.plus and n_patches:
            order = fill_evenly(order, int(outliers(scores[patches]).sum()), n_kept, tokens.is_newline)
        if n_kept == tokens.n_visual or n_patches <= 1:
            return Selection.first(order, n_kept, scores)
        kept = order[:n_kept].sort().values
        places = torch.arange(n_kept, device=kept.device)
        places = places[~tokens.is_newline[kept]] if tokens.n_newlines else places
        centres = torch.searchsorted(patches, kept[places])
        keys = unit_vectors(tokens.vision_attention.patch_keys()[patches].flatten(1))
        near = nearest_neighbours(centres, keys, self.neighbours)
        sources = patches[torch.cat([centres[:, None], near], 1)]
        weights = torch.cat([scores.new_ones(len(near), 1), scores[patches[near]]], 1)
        targets = places.repeat_interleave(sources.shape[1])
        return Selection(kept, tokens.n_visual, scores, Merge(targets, sources.flatten(), weights.flatten()))


def outliers(scores: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Mark the scores that are more than 1.5 interquartile ranges above the third quartile."""
    first, third = scores.quantile(scores.new_tensor([0.25, 0.75]))
    return scores > third + 1.5 * (third - first)


def fill_evenly(
    order: Int[Tensor, " visual"], n_best: int, n_kept: int, newline: Bool[Tensor, " visual"]
) -> Int[Tensor, " visual"]:
    """Reorder the tokens: the first `n_best` patches, evenly spaced other patches up to the budget, and all others in
    their old order."""
    ranked = order[~newline[order]]
    best, patches = ranked[:n_best], ranked[n_best:].sort().values
    room = min(max(n_kept - n_best, 0), len(patches))
    chosen = patches[(torch.arange(room, device=order.device) * 2 + 1) * len(patches) // max(1, 2 * room)]
    first = torch.cat([best, chosen])
    return torch.cat([first, order[~torch.isin(order, first)]])


def nearest_neighbours(
    centres: Int[Tensor, " centres"], keys: Float[Tensor, "patches width"], count: int
) -> Int[Tensor, "centres near"]:
    """Return the patches whose keys are most similar to each centre's, excluding the centre."""
    count = min(count, len(keys) - 1)
    near = most_similar(keys[centres], keys, count + 1)[1]
    itself_last = (near == centres[:, None]).long().argsort(dim=1, stable=True)
    return near.gather(1, itself_last)[:, :count]
