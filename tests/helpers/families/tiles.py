"""Families whose images are square tiles of 3 x 3 visual tokens, with an overview if there are several: InternVL,
Qianfan-OCR, Cohere 2 Vision, Aya Vision, Llama 4 and Ovis 2."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Llama4ForConditionalGeneration

from .base import (
    BREAK,
    DIFFER,
    ENCODES_FIRST,
    END,
    IMAGE,
    PIXELS_OR_EMBEDS,
    RECENT,
    START,
    Family,
    ImageInputs,
    Inputs,
    Size,
)
from .common import CommonFamily

TILE = 24  # pixels
PER_TILE = 9
#: From transformers 5.25 on, Llama 4 takes the features that generate repeats.
READS_ENCODED = "mm_encoder_outputs" in signature(Llama4ForConditionalGeneration.forward).parameters
#: Llama 4's markers between the tiles of a row, and after a row; Ovis 2's.
BESIDE, BELOW, GRID, COLUMN = 87, 88, 88, 89


class Tiled(Family):
    """unit: the side of a tile in `sizes`."""

    unit = 1
    sizes = ((1, 1), (1, 2))

    def n_tiles(self, size: Size) -> int:
        n_tiles = size[0] // self.unit * (size[1] // self.unit)
        return n_tiles if n_tiles == 1 else n_tiles + 1

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(self.n_tiles(size), 3, TILE, TILE, generator=generator)}


class InternVL(Tiled):
    unit = TILE
    # Two tiles and the overview; then an image of one tile.
    sizes = ((TILE, 2 * TILE), (TILE, TILE))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if not ENCODES_FIRST:  # transformers repeats every tile separately, which mixes up the beams' images
            self.cannot["beams"] = DIFFER

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * (self.n_tiles(size) * PER_TILE), END]

    def repeated(self, inputs: Inputs, n: int, per_row: list[int]) -> Inputs:
        out = super().repeated(inputs, n, per_row)
        if not self.repeats_rows():  # each tile separately, so that images get other images' tiles
            out["pixel_values"] = inputs["pixel_values"].repeat_interleave(n, 0)
        return out


class QianfanOcr(CommonFamily, InternVL):
    pass


class Cohere2Vision(CommonFamily, Tiled):
    """One layer with a sliding window, and one without, which does not rotate queries and keys. A line break follows
    each tile."""

    def block(self, size: Size) -> list[int]:
        line_break = BREAK
        return [START, *[*[IMAGE] * PER_TILE, line_break] * self.n_tiles(size), END]


class AyaVision(Cohere2Vision):
    """A marker precedes each tile."""

    def block(self, size: Size) -> list[int]:
        markers = [*range(2, self.n_tiles(size) + 1), BREAK]
        return [START, *(token for marker in markers for token in (marker, *[IMAGE] * PER_TILE)), END]


class Llama4(CommonFamily, Tiled):
    """The first layer attends within chunks; the second attends to everything, does not rotate, and has experts.
    Separators are between tiles, and the overview is at the end."""

    sizes = ((1, 1), (2, 1), (1, 1))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if not READS_ENCODED:  # generate repeats features that the model does not read, or pixels of other rows
            wrong = (ValueError, "features and image tokens do not match")
            self.cannot["sampled"] = self.cannot["beams"] = wrong if ENCODES_FIRST else DIFFER
        if not RECENT:
            self.cannot["embedded"] = PIXELS_OR_EMBEDS

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Return a model that works around transformers 5.24.0, which reads a missing attribute of an output."""
        model = super().build(attention, seed, n_layers)
        model.language_model.register_forward_hook(add_image_outputs)
        return model

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return position IDs for embeddings: the model takes no images with them; generate encodes images before."""
        return self.position_ids(model, inputs)

    def block(self, size: Size) -> list[int]:
        rows, columns = size
        tile, overview = [IMAGE] * PER_TILE, BREAK
        row = [*tile, *[BESIDE, *tile] * (columns - 1), BELOW]
        return [START, *(row * rows if rows * columns > 1 else []), overview, *tile, END]


def add_image_outputs(module: nn.Module, args: Any, output: Any) -> None:
    """Add the attribute that transformers reads and that is missing."""
    if not hasattr(output, "image_outputs"):
        output.image_outputs = None


class Ovis2(CommonFamily, Tiled):
    """An overview, and then tiles with markers between them. The model replaces all of these by embeddings of a visual
    vocabulary."""

    unit = TILE
    sizes = ((TILE, 2 * TILE), (TILE, TILE), (2 * TILE, TILE))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if not ENCODES_FIRST:  # generate repeats each tile separately
            self.cannot["sampled"] = self.cannot["beams"] = DIFFER

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Return a model that never answers with markers: generate would treat them as text, the oracle as
        embeddings."""
        model = super().build(attention, seed, n_layers)
        model.generation_config.suppress_tokens += [GRID, COLUMN]
        return model

    def block(self, size: Size) -> list[int]:
        tile, (rows, columns) = [IMAGE] * PER_TILE, (side // TILE for side in size)
        ids = [START, *tile, GRID]
        if rows * columns > 1:
            for row in range(rows):
                ids += [BREAK] * (row > 0)
                for column in range(columns):
                    ids += [COLUMN] * (column > 0) + tile
        return [*ids, END]
