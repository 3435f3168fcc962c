"""LLaVA and what follows it, Granite 4 Vision, and models on vLLM's Transformers backend."""

from __future__ import annotations

from copy import copy
from typing import Any

from tokenprune.serving.vllm.architectures.architecture import Architecture


def granite_described(config: Any) -> Any:
    """Granite 4 Vision's config with all of the tower's states that become features, where LLaVA names them."""
    named, deep = copy(config), config.deepstack_layer_map or ()
    named.vision_feature_layer = [config.spatial_vision_layer, *(state for state, _ in deep)]
    return named


RECORDS = (
    # Its authors publish their own format.
    Architecture(
        "TokenPruneLlava", "llava", "llava", title="LLaVA-1.5 with a CLIP or SigLIP tower",
        published=("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-interleave-qwen-7b-hf"),
        other_names=(r"(liuhaotian|lmms-lab)/",), shrinks=True,
    ),
    Architecture(
        "TokenPruneTransformers", "llava", "generic", "TransformersMultiModalForCausalLM",
        title="LLaVA with any other tower, such as the bundled model, on vLLM's Transformers backend",
    ),
    Architecture(
        "TokenPruneLlavaNext", "llava_next", "llava_next", title="LLaVA-NeXT",
        published=("llava-hf/llava-v1.6-mistral-7b-hf", "ibm-granite/granite-vision-3.2-2b"),
        names=(r"\S+/llava-v?1\.6", r"\S+/granite-vision-3"), needs_pixels=True,
    ),
    Architecture(
        "TokenPruneLlavaOnevision", "llava_onevision", "llava_next",
        title="LLaVA-OneVision", needs_pixels=True, takes_adapters=False,
    ),
    Architecture(
        "TokenPruneLlavaOnevision2", "llava_onevision2", "llava_onevision2",
        title="LLaVA-OneVision 2", published=("lmms-lab-encoder/LLaVA-OneVision-2-8B-Instruct",),
        names=(r"\S+/LLaVA-OneVision-2",),
        like="qwen2_vl", text_part="text_config", tower="towers.qwen:QWEN2_TOWER", drops_patches=True,
        takes_adapters=False,
    ),
    Architecture(
        "TokenPruneLlavaNextVideo", "llava_next_video", "llava_next_video",
        title="LLaVA-NeXT-Video", published=("llava-hf/LLaVA-NeXT-Video-7B-hf",),
        takes_images=False, prunes_videos=True, needs_pixels=True,
    ),
    Architecture(
        "TokenPruneGranite4Vision", "granite4_vision", "granite4_vision",
        title="Granite 4 Vision", published=("ibm-granite/granite-4.0-3b-vision",),
        names=(r"\S+/(granite-vision-4|granite-4\.\d-\S+-vision)",), described=granite_described, needs_pixels=True,
    ),
)  # fmt: skip
