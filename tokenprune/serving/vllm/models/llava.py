"""LLaVA 1.0 and 1.5 with a CLIP or SigLIP tower: an image is one square of patches."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models import llava
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.processor import PruningProcessor, misfit
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import tiled_images
from tokenprune.tokens import Layout


class LlavaProcessor(PruningProcessor, llava.LlavaMultiModalProcessor):
    square = True

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        if n_visual != (whole := side_of(self.info.get_hf_config()) ** 2):
            raise misfit(n_visual, str(whole))
        return (n_visual,)


def side_of(config: Any) -> int:
    """The side of a tile in patches."""
    return config.vision_config.image_size // config.vision_config.patch_size


class PrunedLlavaTower(PrunedModel):
    """Shared by models with a CLIP or SigLIP tower and LLaVA's names."""

    def attention_module(self) -> Any:
        layers = self.vision_tower.vision_model.encoder.layers
        return layers[self.attention_layer].self_attn.attn

    @property
    def side(self) -> int:
        """The side of a tile in patches."""
        return side_of(self.config)


@MULTIMODAL_REGISTRY.register_processor(
    LlavaProcessor, info=llava.LlavaProcessingInfo, dummy_inputs=llava.LlavaDummyInputsBuilder
)
class PrunedLlava(PrunedLlavaTower, llava.LlavaForConditionalGeneration, SupportsMRoPE):
    """vLLM's LLaVA, pruned."""

    @property
    def tokenwise_projector(self) -> Any:
        return self.multi_modal_projector

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        layout = Layout.raster((1, self.side, self.side))
        pixels = arguments.get("pixel_values")
        return tiled_images(self, [layout] * len(features), [1] * len(features), pixels)
