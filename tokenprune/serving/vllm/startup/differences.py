"""Where vLLM's language model computes differently from transformers': logged once, when an engine starts."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from tokenprune.serving.vllm.settings import Settings
from tokenprune.serving.vllm.startup.refusals import layer_kinds

logger = logging.getLogger("vllm.tokenprune")


def warn_of_differences(model_config: Any, settings: Settings, decoder: nn.Module) -> None:
    """Log a warning for sliding windows and chunks, for causal attention where the model's is not causal, and for YaRN
    where vLLM assumes a different original length, as in Qwen2.5-VL.

    decoder: the module that holds the language model's attention layers and rotary embeddings.
    """
    text_config = model_config.hf_config.get_text_config()
    _warn_of_distances(text_config, settings.n_positions(model_config.max_model_len))
    if model_config.is_mm_prefix_lm:
        _warn_of_causal_attention(decoder)
    _warn_of_yarn(text_config, decoder)


def _warn_of_distances(text_config: Any, longest: int) -> None:
    """Warn of sliding windows and chunks, which count tokens, if a prompt may be longer.

    longest: the highest that position IDs may get.
    """
    window = getattr(text_config, "sliding_window", None)
    n_sliding = layer_kinds(text_config).count("sliding_attention")
    if n_sliding and window is not None and window < longest:
        logger.warning(
            "%d of the language model's %d layers attend within a sliding window of %d tokens, of which vLLM counts "
            "those that are left. Where an unpruned prompt and its answer would be longer, these layers see further "
            "back than in transformers, past the tokens that are dropped.",
            n_sliding,
            text_config.num_hidden_layers,
            window,
        )
    chunk = getattr(text_config, "attention_chunk_size", None)
    n_chunked = layer_kinds(text_config).count("chunked_attention")
    if n_chunked and chunk is not None and chunk < longest:
        logger.warning(
            "%d of the language model's %d layers attend within chunks of %d tokens, of which vLLM counts those that "
            "are left. Where an unpruned prompt and its answer would be longer, chunks begin later than in "
            "transformers, by the tokens that are dropped.",
            n_chunked,
            text_config.num_hidden_layers,
            chunk,
        )


def _warn_of_causal_attention(decoder: nn.Module) -> None:
    layers: list[Any] = [layer for layer in decoder.modules() if hasattr(layer, "attn_backend")]
    backends = {layer.attn_backend for layer in layers}
    causal = sorted(backend.get_name() for backend in backends if not backend.supports_mm_prefix())
    if causal:
        logger.warning(
            "This model was trained with attention in both directions within images, which vLLM's %s does not have: "
            "its answers differ from transformers', with and without pruning. Serve it on a GPU.",
            " and ".join(causal),
        )


def _warn_of_yarn(text_config: Any, decoder: nn.Module) -> None:
    rope = getattr(text_config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings")
    # M-RoPE's tables may be longer, and its frequencies depend on their length.
    lengths = {getattr(module, "cache_max_position_num", original) for module in decoder.modules()}
    if rope.get("rope_type") == "yarn" and lengths != {original}:
        logger.warning(
            "vLLM derives the frequencies of this model's YaRN from another length than %d, the original one: its "
            "answers differ from transformers', with and without pruning.",
            original,
        )
