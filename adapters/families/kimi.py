"""Kimi K2.5: images of any size, and videos in chunks of frames that the tower sees together and averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import RowMixin
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.attention import apply_rotary
from tokenprune.adapters.towers.row import PatchRow, raster_chunks
from tokenprune.adapters.towers.tower import QueryKey, projections
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.tokens.layout import Layout, square_means


@register_adapter("Kimi_K25ForConditionalGeneration")
class KimiK25Adapter(RowMixin, ModelAdapter):
    """For Kimi_K25ForConditionalGeneration. Each chunk of a video counts as one video, with a timestamp before it."""

    takes_video = True
    folded = False
    splits_videos = "its vision tower averages chunks of frames, each of which counts as a video of its own"

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side, _ = self.vision_tower.config.merge_kernel_size
        grids = arguments[f"{modality.name}_grid_thw"].tolist()
        return [chunk_layout(frames, rows, columns, side) for frames, rows, columns in grids]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return chunk_pixels(arguments["pixel_values"], arguments["grid_thw"])


def chunk_pixels(
    patches: Float[Tensor, "patches channels y x"], grids: Int[Tensor, "chunks 3"]
) -> list[Float[Tensor, "channels height width"]]:
    """The mean of each chunk's frames, assembled from their patches; an image is one frame."""
    pattern = "(frame row column) channel y x -> channel (row y) (column x)"
    chunks = zip(patches.split(grids.prod(-1).tolist()), grids.tolist(), strict=True)
    return [reduce(chunk, pattern, "mean", frame=frames, column=columns) for chunk, (frames, _, columns) in chunks]


def chunk_layout(frames: int, rows: int, columns: int, side: int) -> Layout:
    """The layout of frames of rows x columns patches; the side x side squares at the same place in all frames make one
    visual token."""
    to_tokens = partial(frame_means, frames=frames, rows=rows, columns=columns, side=side)
    return Layout(((1, rows // side, columns // side),), to_tokens=to_tokens)


def frame_means(
    values: Float[Tensor, "one patches"], frames: int, rows: int, columns: int, side: int
) -> Float[Tensor, " visual"]:
    """Average every square over all frames."""
    return square_means(values.view(frames, -1).mean(0, keepdim=True), rows, columns, side)


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Queries and keys of every chunk, from the projections of all chunks in one row."""
    cos, sin = call["attention"]["position_embeddings"]
    sizes = call["tower"]["grid_thw"].prod(-1).tolist()

    def by_chunk(states: Float[Tensor, "patches heads_width"]) -> list[Tensor]:
        row = apply_rotary(rearrange(states, "patch (head width) -> patch head width", width=cos.shape[-1]), cos, sin)
        return [rearrange(chunk, "patch head width -> head patch width") for chunk in row.split(sizes)]

    return by_chunk(call["queries"]), by_chunk(call["keys"])


def attention_scale(tower: Any) -> float:
    """The factor of q . k in the tower's attention."""
    return tower.layers[0].attn.scaling


def _points(layer: Any) -> CapturePoints:
    return projections(layer.attn)


def _output_modules(tower: Any) -> list[nn.Module]:
    return [tower.final_layernorm]


TOWER = Tower(
    attrgetter("layers"),
    _points,
    n_prefix=0,
    heads=heads,
    scale=attention_scale,
    row=PatchRow("pixel_values", raster_chunks, _output_modules),
)
