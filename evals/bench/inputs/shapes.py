"""Configurations of real size: time and memory of a forward do not depend on the weights."""

from collections.abc import Callable
from typing import Any

from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

from tokenprune.errors import SettingError, unknown


def config_of(shape: str) -> Any:
    """Return the configuration of a shape. Raises SettingError for a name that is not in SHAPES."""
    if shape not in SHAPES:
        raise SettingError(unknown("shape", shape, SHAPES))
    return SHAPES[shape]()


def _llava_7b() -> Any:
    """LLaVA-1.5-7B: CLIP ViT-L/14 at 336 px, 576 visual tokens, on Vicuna-7B."""
    text = LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32064,
        max_position_embeddings=4096,
    )
    return LlavaConfig(vision_config=_clip(), text_config=text, image_token_index=32000)


def _llava_half() -> Any:
    """LLaVA-1.5's vision tower on Qwen2-0.5B's language model, a combination that no published model has."""
    text = _qwen2_half()
    return LlavaConfig(vision_config=_clip(), text_config=text, image_token_index=text.vocab_size - 1)


def _llava_onevision_half() -> Any:
    """LLaVA-OneVision-0.5B."""
    return _llava_onevision(_qwen2_half())


def _llava_onevision_7b() -> Any:
    """LLaVA-OneVision-7B."""
    text = Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
    )
    return _llava_onevision(text)


def _llava_onevision(text: Qwen2Config) -> Any:
    """26 layers of SigLIP-so400m-patch14-384, no pooling head, on a language model."""
    tower = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=26,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    return LlavaOnevisionConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=text.vocab_size - 1,
        video_token_index=text.vocab_size - 2,
        image_grid_pinpoints=[[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
        vision_aspect_ratio="anyres_max_9",
    )


def _internvl3_5_1b() -> Any:
    """InternVL3.5-1B: InternViT-300M at 448 px, one visual token for four patches, on Qwen3-0.6B."""
    text = Qwen3Config(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
    )
    tower = InternVLVisionConfig(attention_bias=True)
    return InternVLConfig(vision_config=tower, text_config=text, image_token_id=151671)


def _qwen2_5_vl_3b() -> Any:
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    text = {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": True,
    }
    return Qwen2_5_VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=True)


def _clip() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        projection_dim=768,
        image_size=336,
        patch_size=14,
    )


def _qwen2_half() -> Qwen2Config:
    return Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151936,
    )


SHAPES: dict[str, Callable[[], Any]] = {
    "internvl3.5-1b": _internvl3_5_1b,
    "llava-1.5-0.5b": _llava_half,
    "llava-1.5-7b": _llava_7b,
    "llava-onevision-0.5b": _llava_onevision_half,
    "llava-onevision-7b": _llava_onevision_7b,
    "qwen2.5-vl-3b": _qwen2_5_vl_3b,
}
