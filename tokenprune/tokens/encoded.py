"""What is known about one image or video before its visual tokens reach the language model."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from tokenprune.errors import PruningError
from tokenprune.selection import Selection
from tokenprune.strategy import Strategy
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Layout

#: The record travels on the encoder's own output object, because `generate` encodes the images before it calls the
#: model, and may repeat the features for beams in between.
RECORD_ATTRIBUTE = "tokenprune_record"


@dataclass(frozen=True)
class Modality:
    """How one kind of image enters a model.

    name: "image" or "video"; also its key in `mm_encoder_outputs`.
    function: the method of the base model that encodes it.
    pixels: what the argument that brings it is called.
    token_id: the placeholder token that its features replace.
    """

    name: str
    function: str
    pixels: str
    token_id: int


@dataclass(frozen=True)
class CapturePoints:
    """Which modules show one attention layer: the call of `attention` its arguments (rotary embeddings), and each of
    `outputs` what it returns, by a name that the tower knows ("queries", "keys")."""

    attention: nn.Module
    outputs: Mapping[str, nn.Module]


@dataclass(eq=False)
class EncodedImage:
    """One image or video: the layout of its visual tokens and the statistics that the strategy declared.

    selected: the strategy that selected among its tokens, and what, if the attention that it looked at is gone since.
    """

    layout: Layout
    statistics: Mapping[str, Any]
    selected: tuple[Strategy, Selection] | None = None

    @property
    def n_visual(self) -> int:
        return self.layout.n_visual

    def remember_selection(self, strategy: Strategy, selection: Selection) -> None:
        """Release the tower's attention, and remember what it selected for further calls with the image.
        `generate` holds the image as long as it answers, and queries and keys of a layer are larger than what a
        small language model then caches of it."""
        if "vision_attention" in self.statistics:
            self.selected = strategy, selection
            self.statistics = {name: one for name, one in self.statistics.items() if name != "vision_attention"}

    def known_selection(self, strategy: Strategy) -> Selection | None:
        """Return what the strategy selected in an earlier call; None if there was none.

        Raises PruningError if another strategy has selected.
        """
        if self.selected is None:
            return None
        by, selection = self.selected
        if by != strategy:
            raise PruningError(
                f"these images were encoded for {by}, which has selected among their tokens already. Encode them "
                f"again to prune them with {strategy}."
            )
        return selection

    @classmethod
    def concat(cls, tiles: Sequence[EncodedImage]) -> EncodedImage:
        """Join the tiles of one image, which were encoded as separate images."""
        if len(tiles) == 1:
            return tiles[0]
        layout = Layout.concat([tile.layout for tile in tiles])
        statistics = {}
        for name in tiles[0].statistics:
            parts = [tile.statistics[name] for tile in tiles]
            attention = isinstance(parts[0], VisionAttention)
            statistics[name] = VisionAttention.concat(parts, layout) if attention else sum(parts, ())
        return cls(layout, statistics)


def remember_images(output: Any, images: list[EncodedImage]) -> None:
    """Attach the images to the output of the function that encoded them."""
    setattr(output, RECORD_ATTRIBUTE, images)


def recall_images(output: Any, visual: Bool[Tensor, "batch length"]) -> list[EncodedImage]:
    """Return the images of an encoding function's output, one per use, in reading order of the `visual` columns; none
    if `output` is None, because the images come as pixels.

    Raises PruningError for an output without a record.
    """
    if output is None:
        return []
    images: list[EncodedImage] | None = getattr(output, RECORD_ATTRIBUTE, None)
    if images is None:
        raise PruningError(
            "the images were encoded outside this patch, or split into chunks, so nothing is known about their tokens. "
            "Pass pixel_values, or encode after patch(); in generate() leave out prefill_chunk_size."
        )
    return in_rows(images, visual.sum(1).tolist())


def in_rows(images: Sequence[EncodedImage], counts: Sequence[int]) -> list[EncodedImage]:
    """Return `images`, once per use, in rows with `counts` visual tokens each: `generate` repeats every row for its
    beams, one after the other, together with the features of the row's images."""
    times = max(1, sum(counts) // max(1, sum(image.n_visual for image in images)))
    waiting, used = deque(images), []
    for count in counts[::times]:
        row: list[EncodedImage] = []
        while waiting and sum(image.n_visual for image in row) < count:
            row.append(waiting.popleft())
        used += row * times
    return used + list(waiting)  # a mismatch is reported where images and columns are compared
