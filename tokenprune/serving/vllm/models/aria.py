"""Aria: an image in a padded square, which a resampler reads into as many visual tokens as any other."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models import aria
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.encoded import EncodedImage
from tokenprune.errors import SettingError
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.capture import ResamplerCapture
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import resampled_images
from tokenprune.tokens import Layout


class AriaProcessor(PruningProcessor, aria.AriaMultiModalProcessor):
    square = True

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, Any]) -> Any:
        """Raises SettingError for images cut into crops, of which vLLM takes the first only."""
        for options in (hf_processor_mm_kwargs, hf_processor_mm_kwargs.get("images_kwargs") or {}):
            if options.get("split_image"):
                raise SettingError(
                    "mm_processor_kwargs: split_image cuts an image into crops, and vLLM would encode the first only. "
                    "Leave it out."
                )
        return super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)


@MULTIMODAL_REGISTRY.register_processor(
    AriaProcessor, info=aria.AriaProcessingInfo, dummy_inputs=aria.AriaDummyInputsBuilder
)
class PrunedAria(PrunedModel, aria.AriaForConditionalGeneration, SupportsMRoPE):
    """vLLM's Aria, pruned. A visual token is a query, without a place in the image."""

    def make_capture(self) -> ResamplerCapture:
        layer = self.vision_tower.encoder.layers[self.attention_layer]
        reader = self.multi_modal_projector.cross_attn.multihead_attn
        return ResamplerCapture(layer, layer.self_attn.scale, reader)

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        layout = Layout.raster((1, 1, len(features[0])))
        real = self._create_patch_attention_mask(arguments["pixel_mask"]).flatten(1)
        return resampled_images(self, layout, [*map(len, real)], lambda: arguments["pixel_values"], real)
