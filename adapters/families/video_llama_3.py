"""VideoLLaMA 3: images and videos of any size, each with its own number of patches per visual token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.adapters.families.qwen_vl import Qwen2VLAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import layout
from tokenprune.adapters.towers.siglip_packed import VIDEO_LLAMA_TOWER, merge_sizes, packed_pixels
from tokenprune.encoded import Modality
from tokenprune.errors import PruningError
from tokenprune.tokens.layout import Layout


@register_adapter("VideoLlama3ForConditionalGeneration")
class VideoLlama3Adapter(Qwen2VLAdapter):
    """For VideoLlama3ForConditionalGeneration. Position IDs count tokens; a frame is a tile."""

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_model", None)

    def describe_tower(self) -> Tower:
        return VIDEO_LLAMA_TOWER

    def visual_mask(self, modality: Modality, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        compressed = kwargs.get("video_compression_mask")
        if modality.name == "video" and compressed is not None and not bool(compressed.all()):
            raise PruningError(
                "the processor has left out visual tokens of frames that hardly differ (video_compression_mask), so a "
                "video's tokens form no grid. Call the processor with use_token_compression=False, and let pruning "
                "choose the tokens."
            )
        return super().visual_mask(modality, kwargs)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        grids = arguments[f"{modality.name}_grid_thw"].tolist()
        merges = arguments[f"{modality.name}_merge_sizes"].tolist()
        return [layout(t, h, w, merge) for (t, h, w), merge in zip(grids, merges, strict=True)]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return packed_pixels(arguments, self.vision_tower.config, merge_sizes(arguments))
