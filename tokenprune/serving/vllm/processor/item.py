"""An image or video of a request: what travels with it from the API server to the worker."""

# pyright: reportMissingImports=false

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

import torch
from jaxtyping import Bool
from torch import Tensor
from vllm.multimodal.inputs import MultiModalBatchedField, MultiModalFeatureSpec, MultiModalFieldElem

from tokenprune.errors import PruningError
from tokenprune.serving.vllm.processor.markers import Markers
from tokenprune.serving.vllm.settings import Budget, Settings

#: The field that the item of an image or video carries from the API server to the worker.
FIELD = "tokenprune"


@dataclass(frozen=True)
class PrunedItem:
    """An image or video of a request: what the worker must know to prune it.

    parts: how many visual tokens each of its parts has, which are pruned one by one: the frames of a video, or the
        tiles of an image; most images are one part.
    asked: the budget of its request; None for the engine's own.
    key: a unique number below 2**53.
    markers: the text between the visual tokens of an image of one part, or all text of the placeholder of a video whose
        frames are pruned together, which has placeholder tokens too.
    left: the visual tokens whose patches the vision tower encodes, ascending; None for all.
    shrunk: rows and columns of visual tokens of each part, those of the smaller version that the tower encodes, and the
        smaller version's height and width in pixels; None if no smaller version is made.
    n_frames: how many frames its only part has, if they are pruned together; else 0.
    visual_id: the placeholder token of their visual tokens.
    """

    parts: tuple[int, ...]
    asked: Budget | None
    key: int
    markers: Markers = ()
    left: tuple[int, ...] | None = None
    shrunk: tuple[int, ...] | None = None
    n_frames: int = 0
    visual_id: int = 0

    @property
    def encoded(self) -> tuple[int, ...]:
        """How many visual tokens of each part the vision tower makes."""
        return self.parts if self.shrunk is None else (self.shrunk[2] * self.shrunk[3],) * len(self.parts)

    @property
    def n_encoded(self) -> int:
        """How many tiles, frames or whole images the vision tower encodes of it, apart from each other."""
        return self.n_frames or len(self.parts)

    @property
    def n_visual(self) -> int:
        """How many visual tokens it has."""
        return sum(self.parts)

    def unpruned(self) -> tuple[list[int], Bool[Tensor, " placeholder"]]:
        """The placeholder, before pruning, of a video whose frames are pruned together, and which of it is visual."""
        ids = [self.visual_id] * (self.n_visual + len(self.markers))
        visual = torch.ones(len(ids), dtype=torch.bool)
        for place, token in self.markers:
            ids[place], visual[place] = token, False
        return ids, visual

    def left_by_part(self) -> list[tuple[int, ...]] | None:
        """What is `left` of each part, counted from its first visual token."""
        if self.left is None:
            return None
        spans = pairwise(accumulate(self.parts, initial=0))
        cuts = [(start, bisect_left(self.left, start), bisect_left(self.left, stop)) for start, stop in spans]
        return [tuple(place - start for place in self.left[begin:end]) for start, begin, end in cuts]

    def n_kept(self, settings: Settings) -> list[int]:
        """How many visual tokens of each part are kept."""
        if self.shrunk is not None:
            return [settings.budget_of_smaller(n, self.asked) for n in self.encoded]
        before = self.left_by_part()
        most = self.parts if before is None else map(len, before)
        return [min(settings.budget(n, self.asked), n_left) for n, n_left in zip(self.parts, most, strict=True)]

    def places(self, settings: Settings) -> list[tuple[int, int]]:
        """How many placeholder tokens each part would have if it were not pruned, and how many it has."""
        more = len(self.markers)
        return [(n + more, kept + more) for n, kept in zip(self.parts, self.n_kept(settings), strict=True)]

    def element(self) -> MultiModalFieldElem:
        """It as a field of a vLLM item, which stays on the CPU, and which vLLM keeps for a cached image."""
        asked = (self.asked.keep_ratio or 0, self.asked.keep or 0) if self.asked is not None else (0, 0)
        left = (-1,) if self.left is None else (len(self.left), *self.left)
        shrunk = (self.shrunk is not None, *(self.shrunk or ()))
        film = (self.n_frames, self.visual_id)
        numbers = (*asked, self.key, *film, len(self.parts), *self.parts, *left, *shrunk)
        numbers += tuple(chain.from_iterable(self.markers))
        data = torch.tensor(numbers, dtype=torch.float64)
        return MultiModalFieldElem(data=data, field=MultiModalBatchedField(keep_on_cpu=True))

    @classmethod
    def read(cls, data: Tensor) -> PrunedItem:
        """Undo `element`, given the data of one item."""
        keep_ratio, keep, *numbers = data.tolist()
        asked = Budget(keep_ratio or None, int(keep) or None) if keep_ratio or keep else None
        key, n_frames, visual_id, n_parts, *others = map(int, numbers)
        parts, (n_left, *others) = others[:n_parts], others[n_parts:]
        left, (shrinks, *others) = (None, others) if n_left < 0 else (tuple(others[:n_left]), others[n_left:])
        shrunk, markers = (tuple(others[:6]), others[6:]) if shrinks else (None, others)
        pairs = zip(markers[::2], markers[1::2], strict=True)
        return cls(tuple(parts), asked, key, tuple(pairs), left, shrunk, n_frames, visual_id)

    @classmethod
    def of(cls, feature: MultiModalFeatureSpec, pruned: Collection[str]) -> PrunedItem | None:
        """The `PrunedItem` of an item of a prompt; None if its modality is not `pruned`."""
        if feature.modality not in pruned:
            return None
        data = None if feature.data is None or FIELD not in feature.data else feature.data[FIELD].data
        if not isinstance(data, Tensor):
            raise PruningError(
                f"vLLM lost the data that tokenprune attached to one {feature.modality}. If another instance prepares "
                f"prompts for this one (vllm launch render), start it with the same --hf-overrides. Otherwise report "
                f"it with your vLLM version."
            )
        return cls.read(data)
