"""Nemotron-H Omni: images of any size and videos with one placeholder token, in front of a hybrid language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import layout
from tokenprune.adapters.towers.tower import CLIP_COLORS, QueryKey, projections
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.errors import UnsupportedError
from tokenprune.tokens.attention import split_heads
from tokenprune.tokens.layout import Layout


@register_adapter("NemotronH_Omni_Reasoning_V3")
class NemotronOmniAdapter(KnownTowerAdapter):
    """For NemotronH_Omni_Reasoning_V3, which takes images or videos, not both in one call. A step of a video, which has
    several frames, is a tile."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if self.config.video_pruning_rate > 0:
            raise UnsupportedError(
                f"this model drops {self.config.video_pruning_rate:.0%} of a video's tokens by itself. Set "
                f"model.video_pruning_rate = model.config.video_pruning_rate = 0.0, and let tokenprune do it."
            )

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_model", None)

    def describe_tower(self) -> Tower:
        return replace(TOWER, n_prefix=self.vision_tower.config.num_summary_tokens)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those of the interface; frames also use the image token."""
        image = Modality("image", "get_image_features", "pixel_values", self.config.image_token_id)
        return image, replace(image, name="video", function="get_video_features", pixels="pixel_values_videos")

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        merge = round(1 / self.config.downsample_ratio)
        if modality.name == "image":
            return [layout(1, rows, columns, merge) for rows, columns in arguments["image_grid_hw"].tolist()]
        height, width = arguments["pixel_values_videos"].shape[-2:]
        rows, columns = (side // self.vision_tower.patch_size for side in (height, width))
        counts = [video[..., 0].numel() for video in self.features(output)]
        return [layout(count * merge**2 // (rows * columns), rows, columns, merge) for count in counts]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        pixels, grids, side = arguments["pixel_values"], arguments.get("image_grid_hw"), self.vision_tower.patch_size
        if grids is None:
            pattern = "step (time channel) height width -> step channel height width"
            return list(reduce(pixels, pattern, "mean", channel=self.vision_tower.config.num_channels))
        pattern = "(row column) (channel y x) -> channel (row y) (column x)"
        images = zip(pixels.split(grids.prod(-1).tolist()), grids.tolist(), strict=True)
        return [rearrange(image, pattern, column=columns, y=side, x=side) for image, (_, columns) in images]


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Queries and keys of every image, from one row of all images, or of every step of a video, from a batch."""
    split = (split_heads(call[part], config.num_attention_heads) for part in ("queries", "keys"))
    grids = call["tower"].get("image_grid_hw")
    if grids is None:
        return tuple(list(states) for states in split)
    sizes = (grids.prod(-1) + config.num_summary_tokens).tolist()
    return tuple(list(states[0].split(sizes, 1)) for states in split)


def _points(layer: Any) -> CapturePoints:
    return projections(layer.attention)


def _scale(tower: Any) -> float:
    return tower.encoder.layer[0].attention.scaling


#: RADIO. Class and register tokens, whose number is in the config, precede the patches.
TOWER = Tower(attrgetter("encoder.layer"), _points, n_prefix=0, heads=heads, scale=_scale, normalisation=CLIP_COLORS)
