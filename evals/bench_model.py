"""A LLaVA of real shape with random weights, for timing: how long a forward takes does not depend on the weights."""

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, Qwen2Config

VOCABULARY = 1000  # small on purpose: only the last position meets the vocabulary in a prefill
IMAGE_TOKEN = VOCABULARY - 1


def real_shape() -> Any:
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
    language_model = Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
    )
    config = LlavaConfig(vision_config=tower, text_config=language_model, image_token_index=IMAGE_TOKEN)
    torch.manual_seed(0)
    model: Any = LlavaForConditionalGeneration(config)
    return model.eval()


def prompt(model: Any, n_text: int) -> dict[str, Tensor]:
    """Return the inputs of one picture of noise, with `n_text` text tokens around its placeholder tokens."""
    vision = model.config.vision_config
    n_visual = (vision.image_size // vision.patch_size) ** 2
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, model.config.image_token_id, (1, n_visual + n_text), generator=generator)
    before = n_text // 2
    ids[:, before : before + n_visual] = model.config.image_token_id
    pixels = torch.randn(1, 3, vision.image_size, vision.image_size, generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels.to(model.dtype)}
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}
