"""Has smaller versions of images encoded, and puts their features in the places of the images' visual tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.encoded import EncodedImage, Modality
from tokenprune.errors import PruningError
from tokenprune.strategy import ResizeStrategy, Strategy
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.shrunk import Shrunk, stretched

#: The parts of a feature function's output that enter the language model.
FEATURES = ("pooler_output", "deepstack_features")


@dataclass(frozen=True, eq=False)
class Shrinking:
    """The images of one call of a feature function.

    arguments: the function's arguments, by name, for the smaller versions.
    wholes: the layouts of the images as they were passed.
    images: their smaller versions.
    """

    arguments: dict[str, Any]
    wholes: list[Layout]
    images: list[Shrunk]

    @classmethod
    def of(
        cls, strategy: Strategy, adapter: ModelAdapter, modality: Modality, arguments: Mapping[str, Any]
    ) -> Shrinking:
        """Shrink each image to the strategy's budget. Raises PruningError for one that cannot be shrunk so far."""
        assert isinstance(strategy, ResizeStrategy)
        wholes = adapter.layouts(modality, arguments, None)
        shrunk = adapter.shrink(modality, arguments, [strategy.resized_budget(whole.n_visual) for whole in wholes])
        smalls = adapter.layouts(modality, shrunk.arguments, None)
        places = [stretched(whole, small) for whole, small in zip(wholes, smalls, strict=True)]
        kept = torch.cat(places).to(arguments[modality.pixels].device).split([*map(len, places)])
        images = [Shrunk(*parts) for parts in zip(kept, smalls, shrunk.sizes, strict=True)]
        return cls(shrunk.arguments, wholes, images)

    def recorded(self, smalls: list[EncodedImage]) -> list[EncodedImage]:
        """The images as they were passed, from the records of their smaller versions."""
        return [
            replace(small, layout=whole, statistics={**small.statistics, "shrunk": image})
            for small, whole, image in zip(smalls, self.wholes, self.images, strict=True)
        ]

    def spread(self, output: Any) -> None:
        """Give the function's output a row of features for every visual token of the images as they were passed; those
        that the smaller versions do not take are zeros. Raises PruningError for features of another shape."""
        for name in FEATURES:
            if (features := getattr(output, name, None)) is not None:
                setattr(output, name, self._spread(features))

    def _spread(self, features: Any) -> Any:
        counts = [len(image.kept) for image in self.images]
        if isinstance(features, Tensor):
            if features.ndim == 2 and len(features) == sum(counts):
                starts = accumulate((whole.n_visual for whole in self.wholes), initial=0)
                places = [start + image.kept for start, image in zip(starts, self.images, strict=False)]
                return _placed(features, torch.cat(places), sum(whole.n_visual for whole in self.wholes))
            if features.ndim == 3:
                return torch.stack(self._spread(list(features)))
        elif isinstance(features, (list, tuple)):
            if all(isinstance(part, Tensor) for part in features) and [len(part) for part in features] == counts:
                both = zip(features, self.images, self.wholes, strict=True)
                return type(features)([_placed(part, image.kept, whole.n_visual) for part, image, whole in both])
            if features and not isinstance(features[0], Tensor):
                return type(features)([self._spread(part) for part in features])
            if all(len(part) == sum(counts) for part in features):
                return type(features)([self._spread(part) for part in features])
        raise PruningError(
            f"smaller images should have {counts} visual tokens, and the model has made another number of them. Remove "
            f"the patch, and report it with your transformers version."
        )


def _placed(features: Tensor, places: Tensor, n_visual: int) -> Tensor:
    """The features at their places among `n_visual` rows; zeros elsewhere."""
    return features.new_zeros(n_visual, features.shape[1]).index_copy(0, places.to(features.device), features)
