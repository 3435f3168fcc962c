"""GeoLLaVA-8K's Background Token Pruning and Anchored Token Selection (https://arxiv.org/abs/2505.21375)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_choice, check_flags, check_no_effect, check_share, is_number
from tokenprune.errors import SettingError
from tokenprune.selection import Merge, Selection, split
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.clusters import (
    cluster_means,
    find_roots,
    link_neighbours,
    quantile_of_links,
    threshold_links,
)
from tokenprune.strategy import AttentionStrategy, MergingStrategy, Record
from tokenprune.tokens import VisionAttention, VisualTokens
from tokenprune.tokens.cells import rank_within


@register_strategy("backgroundpruning")
@dataclass(frozen=True)
class BackgroundPruning(AttentionStrategy, MergingStrategy):
    """Clusters similar neighbouring visual tokens, and keeps the clusters that the CLS token attends to most.

    A cluster is kept as its root, with the root's position ID and the mean of the cluster's features. Tokens are linked
    only within their tile, and newline tokens never. The budget is exact: if it exceeds the number of clusters, only
    the strongest links are used, down to one token per cluster.

    budget_per: "tile" as in the paper, or "image".
    quantile: links are the best of the image's own: a token may be linked if the cosine to its best neighbour is not
        below this quantile of all tokens'. Towers differ in how alike neighbours are, so a fixed cosine that suits one
        links nothing, or everything, with another.
    threshold: a lowest cosine for links instead of the quantile.
    cluster: False disables Background Token Pruning: every token is its own cluster.
    rank: "cls" is Anchored Token Selection: the attention that the CLS token pays to a cluster's mean key, among the
        clusters of its tile, averaged over heads. "column", for towers without a CLS token, is the mean attention that
        the cluster's tokens receive. "distinct" is Background Token Pruning alone: it keeps the clusters whose tokens
        are least similar to their best neighbours.
    layer: the encoder layer of the attention; None is the one whose output the projector gets.

    Deviations from the paper, whose affinity is learned with the model: tokens are linked by the cosine of their
    projected features, each to its best neighbour other than itself; means are taken after the projector; attention
    is the layer's, from its heads and keys, where the released code projects the layer's output to queries and values
    of one head; an overview is pruned like any tile, where the code leaves it out.
    """

    record: ClassVar[Record] = Record(
        keeps="the most attended clusters of similar neighbours, each as one token (GeoLLaVA-8K)",
        source="both of the paper's parts; the quantile is our own",
        published={"cluster": True, "rank": "cls", "quantile": 0.1},
        waits=20,  # links are followed by pointer jumping
        measured=("layer=-2",),
    )

    whole_image: ClassVar[bool] = True

    budget_per: Literal["image", "tile"] = "tile"
    threshold: float | None = None
    cluster: bool = True
    rank: Literal["cls", "column", "distinct"] = "cls"
    quantile: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("BackgroundPruning", "rank", self.rank, ("cls", "column", "distinct"))
        check_share("BackgroundPruning", "quantile", self.quantile)
        check_flags("BackgroundPruning", cluster=self.cluster)
        if self.rank == "distinct":
            check_no_effect(self, 'with rank="distinct"', "layer")
        if not self.cluster:
            check_no_effect(self, "with cluster=False", "threshold", "quantile", "attention_bias")
        elif self.threshold is not None:
            check_no_effect(self, "beside threshold", "quantile")
        if self.threshold is not None and not (is_number(self.threshold) and -1 <= self.threshold <= 1):
            raise SettingError(
                f"BackgroundPruning: threshold={self.threshold!r} is not a cosine; write one in [-1, 1], such as 0.95, "
                f"or None."
            )

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The statistics that `rank` reads."""
        return {
            "cls": frozenset({"vision_attention", "cls"}),
            "column": frozenset({"vision_attention"}),
            "distinct": frozenset(),
        }[self.rank]

    @property
    def selects_per_tile(self) -> bool:
        """False: all tiles are clustered at once, in time and memory linear in their number."""
        return False

    @property
    def reads_grid(self) -> bool:
        return True

    def select(self, tokens: VisualTokens) -> Selection:
        n_visual, device = tokens.n_visual, tokens.features.device
        tiles = tile_indices(tokens)
        groups = tiles if self.budget_per == "tile" else torch.zeros_like(tiles)
        sizes = groups.bincount()
        n_kept = self.budget(n_visual)
        budgets = torch.tensor(split(n_kept, sizes.tolist()), device=device)

        index = torch.arange(n_visual, device=device)
        parents, cosines = link_neighbours(tokens.features, tokens.layout)
        least = quantile_of_links(cosines, self.quantile) if self.threshold is None else self.threshold
        roots = find_roots(threshold_links(parents, cosines, least, sizes - budgets, groups)) if self.cluster else index
        if self.rank == "distinct":
            scores = cluster_means(1 - cosines.clamp(min=-1), roots)
        elif self.rank == "column":
            scores = cluster_means(tokens.vision_attention.received(), roots)
        else:
            scores = anchored_scores(tokens.vision_attention, roots, tiles)
        scores = score_newlines(scores[roots], tokens, tiles)

        kept = rank_within(scores.masked_fill(roots != index, -torch.inf), groups) < budgets[groups]
        selection = Selection.first(kept.int().argsort(descending=True, stable=True), n_kept, scores)
        # Clusters of a single token stay the same bit for bit.
        sources = (kept[roots] & (roots.bincount(minlength=n_visual)[roots] > 1)).nonzero()[:, 0]
        if not len(sources):
            return selection
        targets = torch.searchsorted(selection.kept, roots[sources])
        return replace(
            selection, merged=Merge.mean(targets, sources, torch.ones_like(sources, dtype=torch.float32), n_kept)
        )


def anchored_scores(
    attention: VisionAttention, roots: Int[Tensor, " visual"], tiles: Int[Tensor, " visual"]
) -> Float[Tensor, " visual"]:
    """Return the scores of Anchored Token Selection at every root, and 0 elsewhere.

    A score is the attention that the CLS token pays to the cluster's mean key, among the clusters of its tile without
    newline tokens, averaged over heads.
    """
    centres = roots == torch.arange(len(roots), device=roots.device)
    if attention.layout.newlines is not None:
        centres &= ~attention.layout.newlines.to(roots.device)
    logits = cluster_means(attention.cls_logits(), roots)
    return softmax_within(logits.masked_fill(~centres, -torch.inf), tiles).mean(0)


def tile_indices(tokens: VisualTokens) -> Int[Tensor, " visual"]:
    """Return the tile of each visual token, numbered from 0 without gaps."""
    if tokens.layout.tiles is None:
        return torch.zeros(tokens.n_visual, dtype=torch.long, device=tokens.features.device)
    return tokens.layout.tiles.to(tokens.features.device).unique(return_inverse=True)[1]


def softmax_within(
    logits: Float[Tensor, "heads visual"], groups: Int[Tensor, " visual"]
) -> Float[Tensor, "heads visual"]:
    """Return the softmax over the tokens of each group."""
    groups = groups.expand_as(logits)
    weights = (logits - group_max(logits, groups).gather(1, groups)).exp()
    totals = torch.zeros_like(weights).scatter_add(1, groups, weights)
    return weights / totals.gather(1, groups)


def group_max(
    values: Float[Tensor, "*rows visual"], groups: Int[Tensor, "*rows visual"]
) -> Float[Tensor, "*rows groups"]:
    """Return the highest value in each group; -inf in an empty one."""
    shape = (*values.shape[:-1], int(groups.max()) + 1)
    return values.new_full(shape, -torch.inf).scatter_reduce(-1, groups, values, "amax")


def score_newlines(
    scores: Float[Tensor, " visual"], tokens: VisualTokens, tiles: Int[Tensor, " visual"]
) -> Float[Tensor, " visual"]:
    """Fill in the scores of newline tokens.

    A newline token represents its row, so it gets the best score of its tile in that row or, if its tile has no other
    token there, the best of its tile.
    """
    if tokens.layout.newlines is None:
        return scores
    newlines = tokens.layout.newlines.to(scores.device)
    shown = scores.masked_fill(newlines, -torch.inf)
    rows = tokens.rows * (tiles.max() + 1) + tiles
    of_row, of_tile = (group_max(shown, groups)[groups] for groups in (rows, tiles))
    return torch.where(newlines, torch.where(of_row == -torch.inf, of_tile, of_row), scores)
