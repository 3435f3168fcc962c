"""Original position IDs in vLLM, which learns where a kept token was only when it encodes the image.

The position IDs of text, and of what is decoded, do not depend on which tokens are kept, because their number is known.
So a request starts with those of its unpruned prompt, in which every kept token has the position ID of its image's
first token. The rest travels with the features: each kept token's distance from the first, in two more columns per
component, which vLLM caches and cuts into chunks together with the features. An image's markers are kept tokens here.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange

from tokenprune.serving.vllm.relied_on import MODEL, Reached

#: Two digits of this base hold an offset. bfloat16 is exact for integers up to 256.
BASE = 256
#: Offsets are below this.
MOST = BASE**2
#: What position IDs are before the first step.
NEVER = -1


def append_offsets(
    rows: Float[Tensor, "kept width"], offsets: Int[Tensor, "kept components"]
) -> Float[Tensor, "kept more"]:
    """Append the offsets as two digits per component, all high digits first."""
    return torch.cat([rows, (offsets // BASE).to(rows.dtype), (offsets % BASE).to(rows.dtype)], -1)


def split_offsets(
    rows: Float[Tensor, "kept more"], n_components: int
) -> tuple[Float[Tensor, "kept width"], Int[Tensor, "kept components"]]:
    """Undo `append_offsets`."""
    features, digits = rows.split([rows.shape[-1] - 2 * n_components, 2 * n_components], -1)
    high, low = digits.float().chunk(2, -1)
    return features, (high * BASE + low).long()


class StepPositions:
    """The offsets of one step of the engine, and its position IDs, in buffers at fixed addresses, from which a CUDA
    graph reads its inputs.

    n_tokens: the most tokens that a step can have.
    width: that of a token's embedding. Rows of just this width are text sent as `prompt_embeds`, without offsets.
    adds: False for compact IDs, which have no offsets.
    """

    def __init__(self, n_components: int, n_tokens: int, width: int, adds: bool) -> None:
        self.n_components, self._width, self._adds = n_components, width, adds
        # One column more than is used, as in vLLM's own buffer of position IDs, whose slices are not contiguous either.
        self._offsets = torch.zeros(n_components, n_tokens + 1, dtype=torch.long)
        self._ids = torch.full_like(self._offsets, NEVER)
        self.reached, self._had_features = Reached(MODEL), False

    def unpack(
        self, embeddings: Sequence[Float[Tensor, "_ _"]], is_visual: Bool[Tensor, " scheduled"] | None
    ) -> list[Float[Tensor, "_ width"]]:
        """The features of the step's visual tokens; stores their offsets for its position IDs."""
        self._offsets.zero_()
        if not embeddings:
            return []
        assert is_visual is not None
        rows, offsets = zip(*map(self._split, embeddings), strict=True)
        mask = is_visual.to(self._offsets.device, non_blocking=True)
        if self._adds:
            self._offsets[:, : len(mask)].masked_scatter_(mask, torch.cat(offsets).T.contiguous())
        return list(rows)

    def check(self, embeddings: Sequence[Float[Tensor, "_ _"]]) -> None:
        """Note that a step's tokens are to be embedded. Raises PruningError if there are features of images among them
        although vLLM has not called what it must call before; in the step after, if the former got no position IDs."""
        if self._had_features and "forward" not in self.reached:
            # A forward that is compiled or replayed runs no Python, but it writes position IDs.
            if int(self._ids[0, 0]) != NEVER:
                self.reached.note("forward")
            self.reached.require("forward")
        self.reached.note("embed_input_ids")
        if any(map(self.has_offsets, embeddings)):
            self.reached.require("get_mrope_input_positions")
            self._had_features = True
        elif embeddings and "get_mrope_input_positions" in self.reached:
            self.reached.require("embed_multimodal")

    def has_offsets(self, rows: Float[Tensor, "n _"]) -> bool:
        """Whether rows are features of an image or video, rather than text."""
        return rows.shape[-1] != self._width

    def _split(self, rows: Float[Tensor, "n _"]) -> tuple[Float[Tensor, "n width"], Int[Tensor, "n components"]]:
        if not self.has_offsets(rows):
            return rows, rows.new_zeros(len(rows), self.n_components, dtype=torch.long)
        return split_offsets(rows, self.n_components)

    def apply(self, ids: Int[Tensor, "rows scheduled"]) -> Int[Tensor, "components scheduled"]:
        """The step's position IDs, given those of its requests, which `get_mrope_input_positions` has made. Raises
        PruningError if vLLM passes none, or others."""
        if ids is None or ids.ndim < 2:
            raise self.reached.missed("forward")
        if not torch.compiler.is_compiling() and "get_mrope_input_positions" in self.reached:
            self.reached.require("embed_input_ids")
        n = ids.shape[-1]
        out = self._ids[:, :n]
        torch.add(ids[: self.n_components], self._offsets[:, :n], out=out)
        return out


@dataclass(frozen=True)
class Place:
    """Visual tokens that are pruned together (of an image, a tile or a frame), in a prompt and in the unpruned prompt,
    where they start at `unpruned_start`."""

    n_kept: int
    unpruned_start: int
    n_visual: int


def unpruned_prompt(
    ids: list[int],
    features: Sequence[MultiModalFeatureSpec],
    counts: Callable[[MultiModalFeatureSpec], Sequence[tuple[int, int]] | None],
    written: Callable[[MultiModalFeatureSpec], tuple[list[int], Tensor] | None] = lambda _: None,
) -> tuple[list[int], list[MultiModalFeatureSpec], list[Place]]:
    """The prompt as it would be without pruning: its token IDs, its images and videos, and the places of everything
    pruned separately.

    counts: how many visual tokens each part of an item had, including markers between them, and how many it has; None
        for an item that is not pruned.
    written: the unpruned placeholder of an item whose text has placeholder tokens too, and which of it is visual; None
        for other items.
    """
    prompt: list[int] = []
    moved, places, done = [], [], 0
    for feature in sorted(features, key=lambda feature: feature.mm_position.offset):
        where = feature.mm_position
        prompt += ids[done : where.offset]
        shared = max(0, done - where.offset)  # Gemma 3 merges the newlines between two images into one token
        start, done = len(prompt) - shared, where.offset + where.length
        count, index = counts(feature), torch.arange(where.length)
        if count is None:
            moved.append(replace(feature, mm_position=replace(where, offset=start)))
            prompt += ids[where.offset + shared : done]
            continue
        if (text := written(feature)) is not None:
            (n, n_kept), (whole, visual) = count[0], text
            places.append(Place(n_kept, start, n))
            moved.append(replace(feature, mm_position=PlaceholderRange(start, n, is_embed=visual)))
            prompt += whole
            continue
        repeats, dropped = torch.ones_like(index), 0
        for part, (n, n_kept) in zip(visual_places(where).split([kept for _, kept in count]), count, strict=True):
            first = int(part[0])
            places.append(Place(n_kept, start + first + dropped, n))
            repeats[first] += n - n_kept  # the part's first token also stands for those it lost
            dropped += n - n_kept
        index = index.repeat_interleave(repeats)
        mask = None if where.is_embed is None else where.is_embed[index]
        moved.append(replace(feature, mm_position=PlaceholderRange(start, len(index), is_embed=mask)))
        prompt += [ids[where.offset + place] for place in index[shared:].tolist()]
    return prompt + ids[done:], moved, places


def visual_places(where: PlaceholderRange) -> Int[Tensor, " kept"]:
    """Where in an item's placeholder its visual tokens are."""
    return torch.arange(where.length) if where.is_embed is None else where.is_embed.nonzero()[:, 0]


def pruned_ids(
    ids: Int[Tensor, "rows unpruned"], delta: int, places: Sequence[Place]
) -> tuple[Int[Tensor, "rows length"], int]:
    """The position IDs of a pruned prompt, before offsets, given those of the unpruned one. `delta` is what to add to a
    place beyond the prompt to get its position ID."""
    index = torch.arange(ids.shape[1])
    parts, done = [], 0
    for place in places:
        first = place.unpruned_start
        parts += [index[done:first], index[first].expand(place.n_kept)]
        done = first + place.n_visual
    dropped = sum(place.n_visual - place.n_kept for place in places)
    return ids[:, torch.cat([*parts, index[done:]])], delta + dropped


def compact_ids(n_tokens: int, n_components: int) -> tuple[Int[Tensor, "rows tokens"], int]:
    """Consecutive position IDs, in as many rows as they have components, but at least the three that vLLM expects for
    any model, and the delta for what follows."""
    return torch.arange(n_tokens).expand(max(3, n_components), -1), 0
