"""A tiny Cohere Compass, saved as vLLM and transformers load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from helpers.served.family import FAR_MROPE, Family
from helpers.served.models import CHAT, N_LAYERS, decoder, save, tokenizer

COMPASS_IMAGE = "<|VISION_START|> <|IMAGE_PAD|> <|VISION_END|>"


def save_cohere_compass(folder: Path, window: int = 4096, **settings: Any) -> None:
    """Cohere Compass with up to 49 visual tokens. One of three decoder layers has no window, and does not rotate."""
    patch, (start, image, end) = 16, COMPASS_IMAGE.split()
    words = tokenizer(start, image, end, "<|VIDEO_PAD|>")
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    text = decoder(
        len(words),
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        sliding_window=window,
        rope_parameters={"sliding_attention": rope, "full_attention": None},
        **settings,
    )
    vision = {"depth": N_LAYERS, "num_heads": 2, "patch_size": patch, "hidden_size": 64, "intermediate_size": 96}
    vision |= {"out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    config = transformers.CohereCompassConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=words.convert_tokens_to_ids(image),
        video_token_id=words.convert_tokens_to_ids("<|VIDEO_PAD|>"),
        vision_start_token_id=words.convert_tokens_to_ids(start),
        vision_end_token_id=words.convert_tokens_to_ids(end),
        tie_word_embeddings=True,
    )
    sizes = {"shortest_edge": (4 * patch) ** 2, "longest_edge": (14 * patch) ** 2}
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = transformers.CohereCompassProcessor(
        image_processor=transformers.CohereCompassImageProcessor(patch_size=patch, size=sizes, **halves),
        tokenizer=words,
        video_processor=transformers.CohereCompassVideoProcessor(patch_size=patch),
        chat_template=CHAT.replace("IMAGE", COMPASS_IMAGE),
    )
    save(transformers.CohereCompassForConditionalGeneration(config), processor, folder)


def rotate_like_qwen3() -> None:
    """Correct transformers 5.19, in which the components of Cohere Compass's position IDs rotate sections, of
    frequencies in a different order. In 5.24, vLLM and Qwen3-VL, they alternate."""
    from transformers.models.cohere_compass import modeling_cohere_compass as modeling

    rotary: Any = modeling.CohereCompassRotaryEmbedding
    if not hasattr(rotary, "recomposition_frequencies"):
        return

    def frequencies(config: Any, device: Any = None, layer_type: str | None = None, **_: Any) -> tuple[Tensor, float]:
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float, device=device) / config.head_dim
        return config.rope_parameters[layer_type]["rope_theta"] ** -exponents, 1.0

    def in_turn(self: Any, waves: Tensor, layer_type: str) -> Tensor:
        """Return, for each frequency, the waves (components, batch, positions, frequencies) of one component."""
        place = torch.arange(waves.shape[-1], device=waves.device)
        limits = 3 * torch.tensor(self.mrope_section[layer_type], device=waves.device)
        component = (place % 3).where(place < limits[place % 3], 0)
        return waves.gather(0, component.expand(1, *waves.shape[1:]))[0].repeat(1, 1, 2)

    rotary.compute_default_rope_parameters = staticmethod(frequencies)
    rotary.recomposition_frequencies = in_turn


FAMILIES = (
    Family("cohere_compass", "TokenPruneCohereCompass", save_cohere_compass, COMPASS_IMAGE, far=FAR_MROPE, n_blocks=30),
)
