"""LLaVA-NeXT-Video, for which vLLM takes only videos: each frame is one square of pooled patches."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from vllm.model_executor.models import llava_next_video
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.llava_next import pool
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.models.llava import PrunedLlavaTower
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.tiles import tiled_images
from tokenprune.tokens import Layout


class LlavaNextVideoProcessor(PruningProcessor, llava_next_video.LlavaNextVideoMultiModalProcessor):
    pruned = ("video",)
    square = True

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        n_frames = len(item["pixel_values_videos"].data)
        return (n_visual // n_frames,) * n_frames


@MULTIMODAL_REGISTRY.register_processor(
    LlavaNextVideoProcessor,
    info=llava_next_video.LlavaNextVideoProcessingInfo,
    dummy_inputs=llava_next_video.LlavaNextVideoDummyInputsBuilder,
)
class PrunedLlavaNextVideo(PrunedLlavaTower, llava_next_video.LlavaNextVideoForConditionalGeneration, SupportsMRoPE):
    """vLLM's LLaVA-NeXT-Video, pruned frame by frame."""

    pruned = LlavaNextVideoProcessor.pruned

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        stride, side = self.config.spatial_pool_stride, self.side
        pooled = partial(pool, mode=self.config.spatial_pool_mode, stride=stride, side=side)
        frame = Layout(((1, side // stride, side // stride),), to_tokens=pooled)
        pixels = [frame for video in arguments["pixel_values_videos"] for frame in video]
        return tiled_images(self, [frame] * len(pixels), [1] * len(pixels), pixels)
