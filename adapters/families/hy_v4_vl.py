"""HY-V4-VL: images and videos of any size, whose every row ends with a newline token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.tokens.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("HYV4VLForConditionalGeneration")
class HYV4VLAdapter(GenericAdapter):
    """For HYV4VLForConditionalGeneration. Newline tokens count as visual tokens."""

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        merge = self.config.vision_config.spatial_merge_size
        layouts = []
        for frames, rows, columns in arguments[f"{modality.name}_grid_thw"].tolist():
            grid = (frames, rows // merge, columns // merge + 1)
            places = torch.arange(frames * (rows // merge) * grid[2])
            layouts.append(replace(Layout.raster(grid), newlines=(places + 1) % grid[2] == 0))
        return layouts
