"""LLaVA-NeXT and LLaVA-OneVision: an overview and tiles without their padding, with newline tokens."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models import llava, llava_next, llava_onevision
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.llava_next import layout_of_size
from tokenprune.encoded import EncodedImage
from tokenprune.errors import PruningError
from tokenprune.serving.vllm.models.llava import PrunedLlavaTower
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.tiles import tiled_images
from tokenprune.tokens import Layout


class LlavaNextProcessor(PruningProcessor, llava_next.LlavaNextMultiModalProcessor):
    square = True


class LlavaOnevisionProcessor(PruningProcessor, llava_onevision.LlavaOnevisionMultiModalProcessor):
    square = True


class PrunedAnyRes(PrunedLlavaTower):
    """Shared by both families and Granite 4 Vision."""

    def layout_of_size(self, size: tuple[int, int]) -> Layout:
        """The layout of an image of (height, width) pixels."""
        raise NotImplementedError(f"{type(self).__name__} does not define layout_of_size.")

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        pixels = arguments.get("pixel_values")
        if pixels is None:
            raise PruningError("image_embeds do not say which tile they belong to. Send the image itself.")
        layouts = [self.layout_of_size(tuple(size)) for size in arguments["image_sizes"].tolist()]
        tiles = [tile for image in pixels for tile in image]
        return tiled_images(self, layouts, [len(image) for image in pixels], tiles)


@MULTIMODAL_REGISTRY.register_processor(
    LlavaNextProcessor, info=llava_next.LlavaNextProcessingInfo, dummy_inputs=llava.LlavaDummyInputsBuilder
)
class PrunedLlavaNext(PrunedAnyRes, llava_next.LlavaNextForConditionalGeneration, SupportsMRoPE):
    """vLLM's LLaVA-NeXT, pruned."""

    @property
    def tokenwise_projector(self) -> Any:
        return self.multi_modal_projector

    def layout_of_size(self, size: tuple[int, int]) -> Layout:
        from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

        strategy = self.config.vision_feature_select_strategy
        return layout_of_size(size, LlavaNextModel, self.config, vision_feature_select_strategy=strategy)


@MULTIMODAL_REGISTRY.register_processor(
    LlavaOnevisionProcessor,
    info=llava_onevision.LlavaOnevisionProcessingInfo,
    dummy_inputs=llava_onevision.LlavaOnevisionDummyInputsBuilder,
)
class PrunedLlavaOnevision(PrunedAnyRes, llava_onevision.LlavaOnevisionForConditionalGeneration, SupportsMRoPE):
    """vLLM's LLaVA-OneVision, pruned. vLLM cuts every image into tiles, even if a prompt has several, and allows for
    nine tiles whatever the config says."""

    @property
    def tokenwise_projector(self) -> Any:
        return self.multi_modal_projector

    def layout_of_size(self, size: tuple[int, int]) -> Layout:
        from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

        return layout_of_size(size, LlavaOnevisionModel, self.config, vision_aspect_ratio="anyres_max_9")
