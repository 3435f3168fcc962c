"""Ovis 2.5: images and videos of any size, whose visual tokens are mixtures of a visual vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenprune.adapters.conventions import unwrap_part
from tokenprune.adapters.families.qwen_vl import Qwen2_5_VLAdapter
from tokenprune.adapters.layouts.shrunk import Shrinks
from tokenprune.adapters.layouts.windows import windows_layout
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.attention import RowAttention, attend_separate, project_separate, separate_points
from tokenprune.adapters.towers.qwen import (
    frame_pixels,
    layouts,
    order_by_window,
    window_side,
    windowed,
    windowed_separate_heads,
)
from tokenprune.adapters.towers.row import PatchRow, Row
from tokenprune.adapters.towers.tower import projected_points
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Ovis2_5ForConditionalGeneration", names={r"ovis-community/Ovis2\.5": None})
class Ovis2_5Adapter(Qwen2_5_VLAdapter):
    """For Ovis2_5ForConditionalGeneration, whose tower is like Qwen2.5-VL's. The marks around images are text and stay.

    The authors' code puts the visual tokens of an image row by row. transformers 5.25.0 leaves them window by window,
    as the tower's layers have them, and each window is then a raster of its own.
    """

    since = (5, 25)
    unshrunk = Shrinks.unshrunk  # not tried

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_tower", None)

    @property
    def by_window(self) -> bool:
        """Whether the model has the visual tokens window by window."""
        return stays_by_window(type(unwrap_part(self.core)), type(self.config))

    def describe_tower(self) -> Tower:
        return replace(TOWER, row=replace(_ROW, describe=row_by_window)) if self.by_window else TOWER

    @property
    def global_layers(self) -> Sequence[int]:
        kinds = self.vision_tower.config.layer_types
        return [number for number, kind in enumerate(kinds) if kind == "full_attention"]

    @property
    def whole_layers(self) -> Sequence[int]:
        return sorted({*self.global_layers, len(self.vision_tower.layers) - 1})

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        config = self.vision_tower.config
        if not self.by_window:
            return layouts(modality, arguments, config.spatial_merge_size)
        grids, merge, side = (
            arguments[f"{modality.name}_grid_thw"].tolist(),
            config.spatial_merge_size,
            window_side(config),
        )
        return [windows_layout(n_frames, height, width, merge, side) for n_frames, height, width in grids]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return frame_pixels(arguments, self.vision_tower.config, "pixel_values")


@cache
def stays_by_window(model: type[nn.Module], config: type) -> bool:
    """Whether a base model's visual tokens stay in the order of the tower's layers. Tried on a tiny one, which encodes
    2 x 3 visual tokens in two windows: if the third is the fifth of its features, they do."""
    layers = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = {**layers, "patch_size": 1, "image_size": 4, "window_size": 4, "spatial_merge_size": 2, "vocab_size": 12}
    text = {**layers, "model_type": "qwen3", "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 8}
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        tiny: Any = model(config(vision_config=vision, text_config=text)).eval()
        tiny.vision_tower.layers[0].self_attn.out_proj.weight.zero_()  # no visual token sees another
        grid, pixels = torch.tensor([[1, 4, 6]]), torch.zeros(24, 3)
        changed = pixels.index_fill(0, torch.arange(8, 12), 1.0)
        before, after = (tiny.get_image_features(image, grid).pooler_output[0] for image in (pixels, changed))
    return bool((before[4] != after[4]).any())


def row_by_window(grids: Int[Tensor, "images 3"], config: Any) -> Row:
    """The row of a tower whose visual tokens are numbered in the order of its layers."""
    row, places = windowed(grids, config), order_by_window(grids, config)
    numbers = places.argsort()
    return replace(row, tokens=numbers[row.tokens], in_tiles=numbers[row.in_tiles], places=places)


def _last_layer(tower: Any) -> list[nn.Module]:
    """The module after which the base model expects all patches: it reorders them without a module."""
    return [tower.layers[-1]]


def _points(layer: Any) -> CapturePoints:
    return separate_points(layer.self_attn)


_ROW = PatchRow("pixel_values", windowed, _last_layer)
TOWER = Tower(
    attrgetter("layers"),
    projected_points,
    n_prefix=0,
    heads=windowed_separate_heads,
    row=_ROW,
    attention=RowAttention(_points, project_separate, attend_separate),
)
