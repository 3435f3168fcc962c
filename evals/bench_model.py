"""Models of real shape with random weights, for timing: how long a forward takes does not depend on the weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

VOCABULARY = 1000  # small on purpose: only the last position meets the vocabulary in a prefill
IMAGE_TOKEN = VOCABULARY - 1


def llava() -> Any:
    """Return LLaVA-1.5's vision tower (CLIP ViT-L/14 at 336 px, 576 visual tokens) on Qwen2-0.5B's language model."""
    tower = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        projection_dim=768,
        image_size=336,
        patch_size=14,
    )
    config = LlavaConfig(vision_config=tower, text_config=_language_model(), image_token_index=IMAGE_TOKEN)
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config).eval()


def llava_onevision() -> Any:
    """Return LLaVA-OneVision-0.5B: 26 layers of SigLIP-so400m-patch14-384, no pooling head, on Qwen2-0.5B."""
    tower = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=26,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=tower,
        text_config=_language_model(),
        image_token_index=IMAGE_TOKEN,
        video_token_index=IMAGE_TOKEN - 1,
        image_grid_pinpoints=[[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
        vision_aspect_ratio="anyres_max_9",
    )
    torch.manual_seed(0)
    return LlavaOnevisionForConditionalGeneration(config).eval()


SHAPES: dict[str, Callable[[], Any]] = {"llava-1.5-0.5b": llava, "llava-onevision-0.5b": llava_onevision}


def prompt(model: Any, n_text: int) -> dict[str, Tensor]:
    """Return the inputs of one picture of noise, with `n_text` text tokens around its placeholder tokens.

    A model that cuts tiles gets a picture of two tiles by two, and the overview.
    """
    side, generator = model.config.vision_config.image_size, torch.Generator().manual_seed(0)
    picture = {"pixel_values": torch.randn(1, 3, side, side, generator=generator)}
    if hasattr(model.config, "image_grid_pinpoints"):
        picture = {
            "pixel_values": torch.randn(1, 5, 3, side, side, generator=generator),
            "image_sizes": torch.tensor([[2 * side, 2 * side]]),
        }
    picture["pixel_values"] = picture["pixel_values"].to(model.dtype)
    picture = {name: tensor.to(model.device) for name, tensor in picture.items()}
    n_visual = len(features(model, picture))
    ids = torch.randint(1, model.config.image_token_id - 1, (1, n_visual + n_text), generator=generator)
    before = n_text // 2
    ids[:, before : before + n_visual] = model.config.image_token_id
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return picture | {name: tensor.to(model.device) for name, tensor in text.items()}


@torch.inference_mode()
def features(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Return the projected features of the one picture in `inputs`, one row a visual token."""
    picture = {name: inputs[name] for name in ("pixel_values", "image_sizes") if name in inputs}
    return model.get_image_features(**picture, return_dict=True).pooler_output[0]


def _language_model() -> Qwen2Config:
    return Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
    )
