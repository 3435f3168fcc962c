"""Qwen-VL, from Qwen2-VL to Qwen3.5, and models with its tower or inputs: images and videos of any size, and position
IDs with three components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.generic import DeepStack
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import GlobalLayersMixin, RowMixin
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.layers import RowLayers
from tokenprune.adapters.towers.qwen import QWEN2_5_TOWER, QWEN2_TOWER, QWEN3_TOWER, frame_pixels, layouts
from tokenprune.adapters.towers.siglip_packed import PADDLE_TOWER, packed_pixels
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Qwen2VLForConditionalGeneration", prompt_style="qwen2-vl", views={"Qwen2VL": ("resized",)})
class Qwen2VLAdapter(RowMixin, ModelAdapter):
    """For Qwen2VLForConditionalGeneration. Position IDs have three components, or four with those of plain text first.
    After an image they resume above its longer side, not above its number of tokens."""

    takes_video = True
    #: Whether the vision tower is given the frames of a video like images.
    frames_as_images = False

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "visual", None)

    def describe_tower(self) -> Tower:
        return QWEN2_TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        return layouts(modality, arguments, self.vision_tower.config.spatial_merge_size)

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return frame_pixels(arguments, self.vision_tower.config)

    @property
    def tower_layers(self) -> RowLayers | None:
        row, vision = self.tower.row, self.vision_tower
        if row is None:
            return None
        describe = partial(row.of_call, config=vision.config)
        return RowLayers.of(self.tower, vision, self.whole_layers[:-1], describe, not self.frames_as_images)

    @property
    def whole_layers(self) -> Sequence[int]:
        """The encoder layers that attend to whole frames, and the last."""
        return range(len(self.tower.layers(self.vision_tower)))


@register_adapter("Qwen2_5_VLForConditionalGeneration", prompt_style="qwen2.5-vl")
@register_adapter("Exaone4_5_ForConditionalGeneration")
class Qwen2_5_VLAdapter(GlobalLayersMixin, Qwen2VLAdapter):
    """For Qwen2_5_VLForConditionalGeneration, most of whose vision layers attend within small windows, and EXAONE 4.5,
    which has its tower and position IDs that count tokens."""

    def describe_tower(self) -> Tower:
        return QWEN2_5_TOWER

    def why_not(self, statistic: str) -> str | None:
        if statistic == "kept_in_tower" and len(self.whole_layers) == 1:
            return "all its layers before the last attend within small windows, which do not compare an image's patches"
        return super().why_not(statistic)

    @property
    def whole_layers(self) -> Sequence[int]:
        return sorted({*self.global_layers, len(self.vision_tower.blocks) - 1})

    @property
    def global_layers(self) -> Sequence[int]:
        named, blocks = self.vision_tower.config.fullatt_block_indexes, self.vision_tower.blocks
        return sorted(number for number in named if number < len(blocks))


@register_adapter("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration", prompt_style="qwen3-vl")
@register_adapter("Qwen4ExpForConditionalGeneration", has_ideal=False)  # it has to know the token ID of every embedding
class Qwen3_5Adapter(Qwen2VLAdapter):
    """For Qwen3.5, most of whose decoder layers have a state instead of keys, and Qwen4-Exp, whose language model also
    reads token IDs."""

    sequence_arguments = ("ple_input_ids",)

    def describe_tower(self) -> Tower:
        return QWEN3_TOWER


@register_adapter("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration", prompt_style="qwen3-vl")
@register_adapter("Cosmos3OmniForConditionalGeneration", "CohereCompassForConditionalGeneration")
class Qwen3VLAdapter(DeepStack, Qwen2VLAdapter):
    """For Qwen3-VL and models of its design, which add more features after their first decoder layers (DeepStack)."""

    def describe_tower(self) -> Tower:
        return QWEN3_TOWER


@register_adapter("HyperCLOVAXVisionV2ForConditionalGeneration")
class HyperClovaXAdapter(Qwen2_5_VLAdapter):
    """For HyperCLOVAXVisionV2ForConditionalGeneration. Position IDs count tokens."""

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_model", None)


@register_adapter("PaddleOCRVLForConditionalGeneration")
class PaddleOCRVLAdapter(Qwen2VLAdapter):
    """For PaddleOCRVLForConditionalGeneration, which takes no videos."""

    takes_video = False
    folded = False

    def describe_tower(self) -> Tower:
        return PADDLE_TOWER

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return packed_pixels(arguments, self.vision_tower.config)
