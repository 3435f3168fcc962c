"""The part of a model adapter's contract that is about smaller images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenprune.adapters.layouts.shrunk import ShrunkArguments
from tokenprune.encoded import Modality

#: Why smaller images do not fit a language model with windows, chunks or an indexer.
WINDOWED = "its language model attends within windows, which would count the tokens of the image as it was passed"


class Shrinks:
    """Which smaller images does the model encode?"""

    #: Why `shrink` is not defined, or wrong for this model's tower or prompts; None if it is right.
    unshrunk: str | None = "its adapter does not know how to make them"
    #: Whether position IDs continue after a video above its times, where these are higher than its rows and columns.
    continues_above_time: bool = False

    def shrink(self, modality: Modality, arguments: Mapping[str, Any], budgets: Sequence[int]) -> ShrunkArguments:
        """The arguments of the modality's encoding function for smaller versions of its images, each with at most as
        many visual tokens as its budget. An image that fits stays as it is. Raises PruningError for one that cannot be
        shrunk so far."""
        raise NotImplementedError(f"{type(self).__name__} sets unshrunk = None: define shrink too.")
