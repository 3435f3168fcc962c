"""Tiny models of Gemma's families, saved as vLLM and transformers load them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, pre_tokenizers
from torch import Tensor

from helpers.served.family import Family, Far
from helpers.served.models import CHAT, PATCH, decoder, published_tower, save, tokenizer, tower

GEMMA_IMAGE = "<start_of_image>"
GEMMA_VISUAL = "<image_soft_token>"
GEMMA4_IMAGE = "<|image|>"
GEMMA4_TOKENS = {
    "image": GEMMA4_IMAGE,
    "video": "<|video|>",
    "audio": "<|audio|>",
    "boi": "<|image>",
    "eoi": "<image|>",
    "boa": "<|audio>",
    "eoa": "<audio|>",
}
#: Small models have per-layer embeddings of every token, and layers that share keys.
GEMMA4_KINDS = {
    "small": {"hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 128, "num_kv_shared_layers": 2},
    "large": {"hidden_size_per_layer_input": 0, "use_bidirectional_attention": "vision"},
}
#: Single tokens in Gemma's vocabulary.
NEWLINES = ["\n" * n for n in range(1, 5)]


def words_and_newlines(*more: str, **named: str) -> Any:
    """Return a tokenizer in which a run of newlines is one token, and a space between newlines too, with `more`
    words."""
    words = tokenizer(*NEWLINES, *more, **named)
    spaces = pre_tokenizers.Split(Regex(" +(?!\n)|(?<!\n) +"), "removed")
    newlines = pre_tokenizers.Split(Regex("\n+"), "isolated")
    words.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, newlines])
    return words


def save_gemma3(folder: Path, window: int = 4096, **settings: Any) -> None:
    """Gemma 3 with 3 x 3 visual tokens, each the mean of 2 x 2 patches; one of three decoder layers has no window."""
    side = 6 * PATCH
    words = words_and_newlines(boi_token=GEMMA_IMAGE, eoi_token="<end_of_image>", image_token=GEMMA_VISUAL)
    image, start, end = (
        words.convert_tokens_to_ids(one) for one in (words.image_token, words.boi_token, words.eoi_token)
    )
    text = transformers.Gemma3TextConfig(
        **decoder(len(words), **settings),
        query_pre_attn_scalar=32,
        sliding_window=window,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    config: Any = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(**tower(side, vision_use_head=False)),
        text_config=text,
        mm_tokens_per_image=9,
        image_token_index=image,
        boi_token_index=start,
        eoi_token_index=end,
        tie_word_embeddings=False,
    )
    config.eos_token_id = 1
    processor = transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size={"height": side, "width": side}),
        tokenizer=words,
        image_seq_length=9,
        chat_template=CHAT.replace("IMAGE", GEMMA_IMAGE),
    )
    save(transformers.Gemma3ForConditionalGeneration(config), processor, folder, published_tower)


def save_gemma4(folder: Path, kind: str = "small", window: int = 4096, **settings: Any) -> None:
    """Gemma 4 with at most 70 visual tokens, each the mean of 2 x 2 patches: `small`, or `large`, which attends in both
    directions within images in layers with a window."""
    patch, pool = 4, 2
    words = words_and_newlines(**{f"{name}_token": token for name, token in GEMMA4_TOKENS.items()})
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(token) for name, token in GEMMA4_TOKENS.items()}
    # With the usual epsilon, norms of nearly zero states enlarge rounding errors.
    text: dict[str, Any] = {
        **decoder(len(words), num_hidden_layers=4, rms_norm_eps=1e-3),
        "global_head_dim": 64,
        "sliding_window": window,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "tie_word_embeddings": False,
        **GEMMA4_KINDS[kind],
        **settings,
    }
    shape = {"head_dim": 32, "num_key_value_heads": 2, "pooling_kernel_size": pool, "position_embedding_size": 64}
    vision = tower(0, default_output_length=70, **shape, patch_size=patch)
    del vision["image_size"]
    config = transformers.Gemma4Config(vision_config=vision, audio_config=None, text_config=text, **ids)
    sizes = {"patch_size": patch, "pooling_kernel_size": pool}
    processor = transformers.Gemma4Processor(
        feature_extractor=transformers.Gemma4AudioFeatureExtractor(),
        image_processor=transformers.Gemma4ImageProcessor(**sizes, max_soft_tokens=70),
        tokenizer=words,
        video_processor=transformers.Gemma4VideoProcessor(**sizes),
        image_seq_length=70,
        chat_template=CHAT.replace("IMAGE", GEMMA4_IMAGE),
    )
    model = transformers.Gemma4ForConditionalGeneration(config)
    halve_norms(model)
    save(model, processor, folder)


def save_gemma4_unified(folder: Path, window: int = 4096, **settings: Any) -> None:
    """Gemma 4 without a vision tower, with at most 70 visual tokens of 8 x 8 pixels."""
    sizes = {"patch_size": 4, "pooling_kernel_size": 2}
    words = words_and_newlines(**{f"{name}_token": token for name, token in GEMMA4_TOKENS.items()})
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(token) for name, token in GEMMA4_TOKENS.items()}
    text: dict[str, Any] = {
        **decoder(len(words), num_hidden_layers=4, rms_norm_eps=1e-3),
        "global_head_dim": 64,
        "sliding_window": window,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "use_bidirectional_attention": "vision",
        "tie_word_embeddings": False,
        **settings,
    }
    vision = {**sizes, "mm_embed_dim": 64, "mm_posemb_size": 70, "output_proj_dims": 64, "num_soft_tokens": 70}
    config = transformers.Gemma4UnifiedConfig(
        vision_config=vision, audio_config=None, text_config=text, tie_word_embeddings=False, **ids
    )
    processor = transformers.Gemma4UnifiedProcessor(
        feature_extractor=transformers.Gemma4UnifiedAudioFeatureExtractor(),
        image_processor=transformers.Gemma4UnifiedImageProcessor(**sizes, max_soft_tokens=70),
        tokenizer=words,
        video_processor=transformers.Gemma4UnifiedVideoProcessor(**sizes),
        image_seq_length=70,
        chat_template=CHAT.replace("IMAGE", GEMMA4_IMAGE),
    )
    model = transformers.Gemma4UnifiedForConditionalGeneration(config)
    halve_norms(model)
    marks = [ids[f"{name}_token_id"] for name in ("image", "video", "audio")]
    save(model, processor, folder, partial(marks_as_padding, marks=marks))


def marks_as_padding(name: str, weight: Tensor, marks: list[int]) -> tuple[str, Tensor]:
    """Make both embeddings equal: if a random model answers with an image mark, transformers continues with the
    embedding of padding, and vLLM with the mark's."""
    if name.endswith("embed_tokens.weight"):
        weight[marks] = weight[0].clone()
    return name, weight


def halve_norms(model: Any) -> None:
    """Halve the norms of queries and keys, which Gemma 4 does not scale."""
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.q_norm.weight.fill_(0.5)


FAMILIES = (
    # No step may end within an image. vLLM 0.32 ensures that only if no other request shares the step.
    Family(
        "gemma3",
        "TokenPruneGemma3",
        save_gemma3,
        GEMMA_IMAGE,
        far=Far(64, 6, (140, 112)),
        visual_token=GEMMA_VISUAL,
        n_blocks=30,
        n_step=256,
    ),
    Family("gemma4", "TokenPruneGemma4", save_gemma4, GEMMA4_IMAGE, n_blocks=16),
    Family(
        "gemma4-large", "TokenPruneGemma4", partial(save_gemma4, kind="large"), GEMMA4_IMAGE, n_blocks=16, n_step=256
    ),
    Family(
        "gemma4_unified",
        "TokenPruneGemma4Unified",
        save_gemma4_unified,
        GEMMA4_IMAGE,
        n_blocks=16,
        n_step=256,
        settings={"strategy": "divprune", "keep_ratio": 0.25},
    ),
)
