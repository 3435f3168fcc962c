"""FastVID (https://arxiv.org/abs/2503.11187)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tokenprune.checks import check_count, check_share, is_number
from tokenprune.errors import SettingError
from tokenprune.selection import Merge, Selection, split
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.density import density_peaks, scaled_distances
from tokenprune.strategies.shared.shares import best_of_frames
from tokenprune.strategies.shared.similarity import most_similar, unit_vectors
from tokenprune.strategy import AttentionStrategy, MergingStrategy, Record, VideoStrategy
from tokenprune.tokens import Frames, VisualTokens

#: Neighbours that a token's density is measured from, the token itself included.
NEIGHBOURS = 4
#: Tokens whose features are compared with anchors at once.
SOURCES = 4096


@register_strategy("fastvid")
@dataclass(frozen=True)
class FastVID(VideoStrategy, AttentionStrategy, MergingStrategy):
    """Cuts the video into segments of similar frames; keeps the most attended tokens of every frame, and in every
    fourth frame of a segment, counted from its end, anchors into which the rest of the segment is merged.

    Frames have equal budgets, but the contextual part of a segment's budget is spent on its anchors alone. Anchors are
    density peaks among the tokens of a frame that are not kept by attention: the product of density and distance to the
    nearest denser token is highest. Every such token of the segment is merged into the most similar anchor of each
    frame that has some. A kept anchor weighs 1 / (1 + the number of tokens merged into it), itself included, at least
    `beta`, and their mean the rest. Position IDs stay as they are.

    segments: the minimum number of segments, cut where neighbouring frames are least alike.
    threshold: frames whose means have a smaller cosine are always cut apart. The paper has 0.9 for LLaVA-OneVision and
        0.84 for Qwen2.5-VL.
    contextual: the share of the budget that anchors have.
    step: one in this many frames of a segment has anchors.
    beta: the minimum weight of an anchor.
    layer: the encoder layer of the attention; None is the one whose output the projector gets.

    Follows the released code for LLaVA-OneVision; that for Qwen2.5-VL also shares out the attended tokens of a segment
    by a second threshold, of 0.95. Deviations: the paper's attention and frame features come from SigLIP's pooling
    head, which the checkpoints do not hold. Here the attention is the CLS token's, or what a token receives from all,
    and a frame is the mean of its features. Densities get no random noise. Budgets are exact: anchor frames share a
    segment's contextual budget evenly, and what exceeds their tokens goes to the most attended of the remaining tokens
    of the video.
    """

    record: ClassVar[Record] = Record(
        keeps="the most attended tokens of each frame; merges the rest of each segment of similar frames into a few",
        source="released scripts: DySeg_c, DySeg_tau, STPrune_d, DTM_p, DTM_beta",
        published={"segments": 8, "threshold": 0.9, "contextual": 0.4, "step": 4, "beta": 0.6},
        unmeasured="compares frames of videos",
    )

    needs: ClassVar[frozenset[str]] = frozenset({"vision_attention", "frames"})

    segments: int = 8
    threshold: float = 0.9
    contextual: float = 0.4
    step: int = 4
    beta: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("segments", "step"):
            check_count("FastVID", name, getattr(self, name), "a number of frames")
        for name in ("contextual", "beta"):
            check_share("FastVID", name, getattr(self, name))
        if not is_number(self.threshold):
            raise SettingError(f"FastVID: threshold={self.threshold!r} is not a cosine; write a number, such as 0.9.")

    def select(self, tokens: VisualTokens) -> Selection:
        frames, scores = tokens.frames, tokens.vision_attention.cls_or_mean().detach()
        n_visual, n_kept = tokens.n_visual, self.budget(tokens.n_visual)
        if n_kept == n_visual:
            return Selection.all(n_visual, scores.device, scores)
        extra = frames.kept_extra_tokens(n_kept)
        counts = split(n_kept - len(extra), [1] * frames.n_frames)
        contextual = [int(count * self.contextual) for count in counts]
        salient = [count - few for count, few in zip(counts, contextual, strict=True)]
        marked = best_of_frames(scores[frames.frame_tokens], torch.tensor(salient, device=scores.device))
        order = marked.byte().argsort(dim=1, stable=True)  # what is not salient comes first
        others = [row[at[: len(at) - n]] for row, at, n in zip(frames.frame_tokens, order, salient, strict=True)]
        merged = [
            part
            for segment in self.segments_of(frames, tokens.features)
            for part in self.merge_segment(tokens.features, others[segment], sum(contextual[segment]))
        ]
        taken = scores.new_zeros(n_visual, dtype=torch.bool).index_copy(
            0, frames.frame_tokens.flatten(), marked.flatten()
        )
        taken = taken.index_fill(0, torch.cat([extra, *(part.anchors for part in merged)]), True)
        # The most attended of the others, where anchors were too few for the budget.
        rest = scores.masked_fill(taken, -torch.inf).argsort(descending=True, stable=True)
        n_taken = len(extra) + sum(salient) + sum(len(part.anchors) for part in merged)
        taken = taken.index_fill(0, rest[: n_kept - n_taken], True)
        kept = (~taken).byte().argsort(stable=True)[:n_kept]
        merges = [part.merge(torch.searchsorted(kept, part.anchors), self.beta) for part in merged]
        return Selection(kept, n_visual, scores, Merge.concat(merges) if merges else None)

    def segments_of(self, frames: Frames, features: Float[Tensor, "visual width"]) -> list[slice]:
        """Return the frames of every segment: cut where neighbours are least alike, and below the threshold."""
        means = [frame.mean(0) for frame in frames.each(features)]
        alike = torch.stack([cosine_similarity(mean, other, dim=0) for mean, other in pairwise(means)]).tolist()
        least = sorted(range(len(alike)), key=alike.__getitem__)[: self.segments - 1]
        cuts = {*least, *(at for at, cosine in enumerate(alike) if cosine < self.threshold)}
        return [slice(*ends) for ends in pairwise([0, *(at + 1 for at in sorted(cuts)), frames.n_frames])]

    def merge_segment(
        self, features: Float[Tensor, "visual width"], frames: Sequence[Int[Tensor, " others"]], n_anchors: int
    ) -> Iterator[Merged]:
        """Yield, for every frame of a segment that has anchors, how the whole segment is merged into them.

        frames: the tokens of each frame of the segment that are not salient.
        """
        with_anchors = frames[::-1][:: self.step][::-1]
        sources = torch.cat(list(frames))
        for frame, count in zip(with_anchors, split(n_anchors, [1] * len(with_anchors)), strict=True):
            if count := min(count, len(frame)):
                distances = scaled_distances(features[frame])
                anchors = frame[density_peaks(distances, count, NEIGHBOURS)]
                directions = unit_vectors(features[anchors])
                blocks = sources.split(SOURCES)
                nearest = [most_similar(unit_vectors(features[block]), directions)[1][:, 0] for block in blocks]
                yield Merged(anchors, sources, torch.cat(nearest))


@dataclass(frozen=True, eq=False)
class Merged:
    """What is merged into the anchors of one frame.

    nearest: the index, among the anchors, of each source's most similar one. An anchor is a source too.
    """

    anchors: Int[Tensor, " anchors"]
    sources: Int[Tensor, " sources"]
    nearest: Int[Tensor, " sources"]

    def merge(self, places: Int[Tensor, " anchors"], beta: float) -> Merge:
        """Weigh each anchor and the mean of its sources, for anchors at these places among the kept tokens."""
        counts = torch.zeros_like(places).index_add(0, self.nearest, torch.ones_like(self.nearest)).float()
        own = (1 / (counts + 1)).clamp(min=beta)
        weights = torch.cat([own, ((1 - own) / counts.clamp(min=1))[self.nearest]])
        return Merge(torch.cat([places, places[self.nearest]]), torch.cat([self.anchors, self.sources]), weights)
