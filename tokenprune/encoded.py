"""Records of encoded images and videos, on their way from the vision tower to the language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tokenprune.errors import PruningError
from tokenprune.selection import Selection
from tokenprune.strategy import Strategy
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.tower import KeptInTower

#: Statistics that are not recorded while an image is encoded.
NOT_RECORDED = frozenset({"cls", "grid", "frames", "text_attention", "canvas_attention", "shrunk"})

#: The record travels on the encoder's own output object, because `generate` encodes the images before it calls the
#: model, and may repeat the features for beams in between.
RECORD_ATTRIBUTE = "tokenprune_record"


@dataclass(frozen=True)
class Modality:
    """A kind of visual input, image or video, and how it enters a model.

    name: "image" or "video"; also its key in `mm_encoder_outputs`.
    function: the name of the base model's method that encodes it.
    pixels: the name of the argument that holds its pixels.
    token_id: the placeholder token that its features replace.
    """

    name: str
    function: str
    pixels: str
    token_id: int


@dataclass(frozen=True)
class CapturePoints:
    """The modules to record one attention layer from.

    attention: the module whose call arguments are recorded (rotary embeddings).
    outputs: the modules whose outputs are recorded, by names that the tower defines ("queries", "keys").
    """

    attention: nn.Module
    outputs: Mapping[str, nn.Module]


@dataclass(eq=False)
class EncodedImage:
    """One encoded image or video: the layout of its visual tokens and the statistics that the strategy declared.

    selected: a strategy and its selection, remembered once the attention that it read has been freed; None until then.
    recorded_for: the strategy whose statistics were recorded; None if no other can select from the image.
    """

    layout: Layout
    statistics: Mapping[str, Any]
    selected: tuple[Strategy, Selection] | None = None
    recorded_for: Strategy | None = None

    def check_statistics_for(self, strategy: Strategy) -> None:
        """Raise PruningError for a strategy that reads statistics other than those recorded."""
        recorded = self.recorded_for
        if recorded is None or recorded == strategy:
            return
        missing = strategy.needs - NOT_RECORDED - recorded.needs
        other_layer = "vision_attention" in strategy.needs and strategy.attention_layer != recorded.attention_layer
        other_layer |= "early_attention" in strategy.needs and strategy.early_layer != recorded.early_layer
        if missing or other_layer or {"kept_in_tower", "kept_before_tower", "shrunk"} & self.statistics.keys():
            raise PruningError(
                f"these images were encoded for {recorded}, whose statistics are not those that {strategy} reads. "
                f"Encode them again, after patch()."
            )

    def statistics_on(self, device: torch.device) -> dict[str, Any]:
        """The statistics on a device: the visual tokens may be on another device than the tower."""
        return {name: _to_device(value, device) for name, value in self.statistics.items()}

    @classmethod
    def concat(
        cls, tiles: Sequence[EncodedImage], join: Callable[[list[Layout]], Layout] = Layout.concat
    ) -> EncodedImage:
        """Join the tiles of one image, or the frames of a video, that were encoded as separate images. `join` makes the
        layout."""
        if len(tiles) == 1:
            return tiles[0]
        layout = join([tile.layout for tile in tiles])
        names = tiles[0].statistics
        statistics = {name: _concat([tile.statistics[name] for tile in tiles], layout) for name in names}
        return cls(layout, statistics, recorded_for=tiles[0].recorded_for)


def miscounted(modality: str, n_placeholders: int, counts: Sequence[int]) -> PruningError:
    """The error for images with `counts` visual tokens each, which do not add up to the prompt's placeholder tokens."""
    if not counts:
        return PruningError(
            f"the prompt has {n_placeholders} {modality} placeholder tokens, and the model's forward did not encode "
            f"their {modality}s with the method that the adapter names, such as get_{modality}_features. Call it "
            f"there; set one of your own, such as a cache of features, before patch(); or write an adapter whose "
            f"Modality names the right one: see adapters/README.md."
        )
    return PruningError(
        f"the prompt has {n_placeholders} {modality} placeholder tokens, but the grids of the {modality}s have "
        f"{sum(counts)} visual tokens. Prepare text and images together, with the model's own processor."
    )


def recall_images(output: Any, visual: Bool[Tensor, "batch length"]) -> list[EncodedImage]:
    """Return the images of an encoding function's output, once per use, in reading order of the `visual` columns. The
    list is empty if `output` is None, because the images come as pixels.

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
    sizes = [image.layout.n_visual for image in images]
    times = max(1, sum(counts) // max(1, sum(sizes)))
    used, start = [], 0
    for count in counts[::times]:
        stop = start
        while stop < len(images) and sum(sizes[start:stop]) < count:
            stop += 1
        used += [*images[start:stop]] * times
        start = stop
    return [*used, *images[start:]]  # a mismatch is reported where images and columns are compared


def _to_device(statistic: Any, device: torch.device) -> Any:
    return tuple(part.to(device) for part in statistic) if isinstance(statistic, tuple) else statistic.to(device)


def _concat(parts: list[Any], layout: Layout) -> Any:
    """A statistic of an image, from that of its tiles."""
    if isinstance(parts[0], VisionAttention):
        return VisionAttention.concat(parts, layout)
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return KeptInTower.concat(parts) if isinstance(parts[0], KeptInTower) else sum(parts, ())
