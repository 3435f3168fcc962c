"""Nemotron-H Omni: images of any size and videos with one placeholder token, in front of a hybrid language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.errors import UnsupportedError
from tokenprune.tokens.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("NemotronH_Omni_Reasoning_V3")
class NemotronOmniAdapter(GenericAdapter):
    """For NemotronH_Omni_Reasoning_V3, which takes images or videos, not both in one call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if self.config.video_pruning_rate > 0:
            raise UnsupportedError(
                f"this model drops {self.config.video_pruning_rate:.0%} of a video's tokens by itself. Set "
                f"model.video_pruning_rate = model.config.video_pruning_rate = 0.0, and let tokenprune do it."
            )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those of the interface: frames, too, are written with the token of images."""
        image = Modality("image", "get_image_features", "pixel_values", self.config.image_token_id)
        return image, replace(image, name="video", function="get_video_features", pixels="pixel_values_videos")

    @property
    def offers(self) -> frozenset[str]:
        return super().offers | self.frames_offered | {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        merge = round(1 / self.config.downsample_ratio)
        if modality.name == "image":
            grids = [(1, rows, columns) for rows, columns in arguments["image_grid_hw"].tolist()]
        else:
            videos, patch = arguments["pixel_values_videos"], self.config.vision_config.patch_size
            steps = [image[..., 0].numel() for image in self.features(output)]
            rows, columns = (side // patch for side in videos.shape[-2:])
            grids = [(n_visual * merge**2 // (rows * columns), rows, columns) for n_visual in steps]
        return [Layout.raster((steps, rows // merge, columns // merge)) for steps, rows, columns in grids]

    def image_pixels(self, modality: Modality, arguments: Mapping[str, Any], layouts: list[Layout]) -> list[Tensor]:
        if modality.name == "video":
            return super().image_pixels(modality, arguments, layouts)
        parts = arguments["pixel_values"].split(arguments["image_grid_hw"].prod(-1).tolist())
        return [part[None] for part in parts]
