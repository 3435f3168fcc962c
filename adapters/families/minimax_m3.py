"""MiniMax M3: images and chunks of videos, in front of sparse layers that choose blocks of the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.attention import apply_rotary
from tokenprune.adapters.towers.qwen import by_frame, frame_pixels
from tokenprune.adapters.towers.row import PatchRow, Row, adjacent
from tokenprune.adapters.towers.tower import CLIP_COLORS, QueryKey, projected_points
from tokenprune.encoded import Modality
from tokenprune.errors import PruningError
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.layout import Layout, square_means


@register_adapter("MiniMaxM3SparseForConditionalGeneration")
class MiniMaxM3Adapter(KnownTowerAdapter):
    """For MiniMaxM3SparseForConditionalGeneration, with compact position IDs and rows of one length.

    Its sparse layers divide the cache into blocks, and use position IDs as places in it. Padding shifts the borders of
    these blocks, even without a patch. The tower sees all frames of a chunk at once, so that a chunk is one tile.
    """

    splits_videos = "its processor cuts a video into chunks of frames, each of which counts as a video of its own"

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        merge = self.vision_tower.config.spatial_merge_size
        grids = arguments[f"{modality.name}_grid_thw"].tolist()
        return [chunk_layout(n_frames, rows, columns, merge) for n_frames, rows, columns in grids]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        """The frames of each chunk, one below the other."""
        frames = iter(frame_pixels(arguments, self.vision_tower.config, "pixel_values"))
        counts = arguments["grid_thw"][:, 0].tolist()
        return [torch.cat([next(frames) for _ in range(count)], 1) for count in counts]

    def prune_arguments(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        if packing.holes:
            raise PruningError(
                f"pruning leaves {', '.join(map(str, packing.counts))} tokens in the rows of this batch, and the "
                f"padding that makes them equally long would move the blocks of the cache that {self.description}'s "
                f"sparse layers choose from. Call the model with one prompt at a time, without padding."
            )
        super().prune_arguments(kwargs, packing, n_slots)


def chunk_layout(n_frames: int, rows: int, columns: int, side: int) -> Layout:
    """The layout of frames of rows x columns patches, all in one tile, with a visual token for each square of side x
    side patches of a frame."""
    to_tokens = partial(squares_of_frames, n_frames=n_frames, rows=rows, columns=columns, side=side)
    return Layout(((n_frames, rows // side, columns // side),), to_tokens=to_tokens)


def squares_of_frames(
    values: Float[Tensor, "one patches"], n_frames: int, rows: int, columns: int, side: int
) -> Float[Tensor, " visual"]:
    """Average every square of every frame."""
    return torch.cat([square_means(frame[None], rows, columns, side) for frame in values.view(n_frames, -1)])


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Queries and keys of every chunk; the first part of each head is rotated."""
    cos, sin = call["attention"]["position_embeddings"]
    grids, rotated = call["tower"]["grid_thw"], cos.shape[-1]

    def of_chunks(states: Float[Tensor, "*one patches heads_width"]) -> list[Tensor]:
        row = states.flatten(0, -2)  # up to 5.1x it is a batch of one
        split = rearrange(row, "patch (head width) -> patch head width", head=config.num_attention_heads)
        turned = torch.cat([apply_rotary(split[..., :rotated], cos, sin), split[..., rotated:]], -1)
        frames = iter(by_frame(turned, grids, config.spatial_merge_size))
        return [torch.cat([next(frames) for _ in range(count)], 1) for count in grids[:, 0].tolist()]

    return of_chunks(call["queries"]), of_chunks(call["keys"])


def chunks(grids: Int[Tensor, "chunks 3"], config: Any) -> Row:
    """The row of the tower, in which the patches of a visual token are adjacent. A chunk is one tile."""
    return replace(adjacent(grids, config), tiles=tuple(grids.prod(-1).tolist()))


def _output_modules(tower: Any) -> Sequence[nn.Module]:
    """None: the tower returns its last layer's output."""
    return ()


TOWER = Tower(
    attrgetter("layers"),
    projected_points,
    n_prefix=0,
    heads=heads,
    normalisation=CLIP_COLORS,
    row=PatchRow("pixel_values", chunks, _output_modules),
)
