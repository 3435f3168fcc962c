"""Document readers and Qwen-Omni's thinkers at the shapes of published checkpoints (heads, patches, merging, kinds of
layers), but with few layers and narrow hidden states, and with the token counts of their real processors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import transformers
from helpers.contract.published import assert_pruned_is_masked, build, image_of, n_placeholders, prompt_of
from helpers.families import FAMILIES
from helpers.families.base import END, IMAGE, START

HIDDEN = 128
NARROW = {"hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 96}
#: Vision towers keep their published widths, which determine the widths of their heads.
SHALLOW = {"num_hidden_layers": 2, "intermediate_size": 64}


def rope(section: list[int], **settings: Any) -> Any:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section, **settings}}


def paddle(config: Any, tokens: Any) -> Any:
    text = {**NARROW, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128, **rope([16, 24, 24])}
    vision = {**SHALLOW, "hidden_size": 1152, "num_attention_heads": 16, "patch_size": 14, "spatial_merge_size": 2}
    return type(config)(vision_config=vision, text_config=text, **tokens)


def deepseek(config: Any, tokens: Any) -> Any:
    sam = {"num_hidden_layers": 2, "mlp_dim": 64, "global_attn_indexes": [1], "downsample_channels": [512, 896]}
    encoder = {"hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2, **SHALLOW}
    text = {**NARROW, "num_attention_heads": 10, "num_key_value_heads": 10, "head_dim": 128, "n_routed_experts": 64}
    text |= {"num_experts_per_tok": 6, "n_shared_experts": 2, "moe_intermediate_size": 16}
    text |= {"hidden_size": 1280, "mlp_layer_types": ["dense", "sparse"]}
    vision = {"sam_config": sam, "encoder_config": encoder}
    return type(config)(vision_config=vision, text_config=text, **tokens)


def glm(config: Any, tokens: Any) -> Any:
    text = {**NARROW, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    text |= rope([8, 12, 12], partial_rotary_factor=0.5)
    vision = {"depth": 2, "hidden_size": 1024, "intermediate_size": 64, "out_hidden_size": HIDDEN}
    return type(config)(vision_config=vision, text_config=text, **tokens)


def lighton(config: Any, tokens: Any) -> Any:
    text = {**NARROW, "model_type": "qwen3", "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    vision = {**SHALLOW, "model_type": "pixtral", "hidden_size": 1024, "num_attention_heads": 16, "patch_size": 14}
    return type(config)(vision_config={**vision, "image_size": 1540}, text_config=text, **tokens)


def hunyuan(config: Any, tokens: Any) -> Any:
    tokens = {"image_token_id": IMAGE, "im_start_id": START, "im_end_id": END}
    text = {**NARROW, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, **rope([16, 16, 16, 16])}
    vision = {**SHALLOW, "hidden_size": 1152, "num_attention_heads": 16, "patch_size": 16, "out_hidden_size": HIDDEN}
    return type(config)(vision_config=vision, text_config=text, tie_word_embeddings=False, **tokens)


def omni(config: Any, tokens: Any) -> Any:
    """The width of a head is that of the hidden states divided by the number of heads."""
    text = {"hidden_size": 3584, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 99}
    text |= {"num_attention_heads": 28, "num_key_value_heads": 4, **rope([16, 24, 24])}
    vision = {"depth": 2, "hidden_size": 1280, "intermediate_size": 64, "num_heads": 16, "out_hidden_size": 3584}
    vision |= {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]}
    audio = {**config.audio_config.to_dict(), "output_dim": 3584}
    return type(config)(vision_config=vision, text_config=text, audio_config=audio, **tokens)


def omni3(config: Any, tokens: Any) -> Any:
    text = {**NARROW, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 99}
    text |= {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_hidden_layers": 4}
    text |= rope([24, 20, 20], mrope_interleaved=True)
    vision = {"depth": 4, "hidden_size": 1152, "intermediate_size": 64, "num_heads": 16, "out_hidden_size": HIDDEN}
    vision |= {"patch_size": 16, "deepstack_visual_indexes": [1, 2, 3]}
    audio = {**config.audio_config.to_dict(), "output_dim": HIDDEN}
    return type(config)(vision_config=vision, text_config=text, audio_config=audio, **tokens)


@dataclass(frozen=True)
class Published:
    """A family at its published configuration.

    publish: makes the published config from the tiny one and its tokens.
    images, processor: the image processor class, and the class that counts the placeholders of its images.
    size: height and width of an image.
    n_visual: the number of visual tokens of that image.
    settings: settings of the image processor whose published values are not the defaults.
    counted: other arguments of the processor that its counts depend on.
    """

    publish: Callable[[Any, Any], Any]
    images: str
    processor: str
    size: tuple[int, int]
    n_visual: int
    settings: dict[str, Any] = field(default_factory=dict)
    counted: dict[str, Any] = field(default_factory=dict)


PUBLISHED = {
    "paddleocr-vl": Published(paddle, "PaddleOCRVLImageProcessor", "PaddleOCRVLProcessor", (480, 640), 391),
    "deepseek-ocr2": Published(
        deepseek,
        "DeepseekOcr2ImageProcessor",
        "DeepseekOcr2Processor",
        (768, 1536),
        2 * 144 + 256 + 1,  # crops, whole, separator
        counted={"patch_size": 16, "downsample_ratio": 4},
    ),
    "glm-ocr": Published(glm, "Glm46VImageProcessor", "Glm46VProcessor", (480, 640), 391),
    "lighton-ocr": Published(
        lighton,
        "PixtralImageProcessor",
        "LightOnOcrProcessor",
        (480, 640),
        18 * 23,
        settings={"size": {"longest_edge": 1540}, "patch_size": 28},
        counted={"effective_patch_size": 28},
    ),
    "hunyuan-vl": Published(
        hunyuan,
        "HunYuanVLImageProcessor",
        "HunYuanVLProcessor",
        (480, 640),
        15 * 21 + 2,
        counted={"cat_extra_token": True},
    ),
    "qwen2.5-omni": Published(
        omni, "Qwen2VLImageProcessor", "Qwen2_5OmniProcessor", (480, 640), 391, settings={"patch_size": 14}
    ),
    "qwen3-omni": Published(
        omni3, "Qwen2VLImageProcessor", "Qwen3OmniMoeProcessor", (480, 640), 300, settings={"patch_size": 16}
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_at_published_shapes(name: str) -> None:
    published, plain = PUBLISHED[name], FAMILIES[name]

    class AsPublished(type(plain)):  # type: ignore[misc]
        def config(self) -> Any:
            return published.publish(super().config(), tokens_of(name))

    family: Any = AsPublished(name)
    model = build(family, "sdpa")
    processor = getattr(transformers, published.images)(**published.settings)
    inputs = dict(processor(images=[image_of(*published.size)], return_tensors="pt"))
    inputs["pixel_values"] = inputs["pixel_values"].float()
    writer = getattr(transformers, published.processor)
    if not hasattr(writer, "replace_image_token"):
        pytest.skip("in this release of transformers, other code writes the placeholders of an image")
    n_written = n_placeholders(writer, inputs, image_processor=processor, **published.counted)
    assert n_written == published.n_visual
    assert_pruned_is_masked(family, model, prompt_of(family, inputs, [[START, n_written]]), n_written)


def tokens_of(name: str) -> dict[str, Any]:
    family: Any = FAMILIES[name]
    return family.tokens() if hasattr(family, "tokens") else {"image_token_id": IMAGE}
