"""Rotary embeddings at position IDs beyond vLLM's tables.

vLLM tabulates cosines and sines up to the length of the longest sequence. Original position IDs exceed that, because
they count pruned tokens too, and reading beyond the table silently returns NaN. transformers' embeddings, on vLLM's
Transformers backend, have no tables, but one position ID beyond a dynamic one's length changes the frequencies of all
requests.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from torch import nn
from vllm.model_executor.layers.rotary_embedding.bailing_mrope import BailingMRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding, RotaryEmbeddingBase
from vllm.model_executor.layers.rotary_embedding.ernie45_vl_rope import Ernie4_5_VLRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.gemma4_rope import Gemma4RotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.linear_scaling_rope import LinearScalingRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.llama3_rope import Llama3RotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.mrope import MRotaryEmbedding

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.settings import COMPACT, Settings

#: Their frequencies do not depend on the length of the table.
LENGTHENED = (
    RotaryEmbedding,
    LinearScalingRotaryEmbedding,
    Llama3RotaryEmbedding,
    MRotaryEmbedding,
    BailingMRotaryEmbedding,
    Ernie4_5_VLRotaryEmbedding,
    Gemma4RotaryEmbedding,
)


def lengthen(language_model: nn.Module, settings: Settings, max_model_len: int) -> None:
    """Lengthen every table of a language model to at least the position IDs that an engine with `settings` provides.
    Raises UnsupportedError for one that vLLM cannot lengthen because its frequencies depend on the length, and for
    transformers' own embedding, if it is dynamic and made for fewer."""
    n_positions = settings.n_positions(max_model_len)
    module: Any
    for module in language_model.modules():
        if getattr(module, "rope_type", None) == "dynamic" and module.original_max_seq_len < n_positions:
            raise _too_short(type(module).__name__, module.original_max_seq_len, settings, n_positions)
        if not isinstance(module, RotaryEmbeddingBase) or len(module.cos_sin_cache) >= n_positions:
            continue
        yarn = isinstance(module, MRotaryEmbedding) and module.scaling_factor is not None
        if type(module) not in LENGTHENED or yarn:
            raise _too_short(type(module).__name__, len(module.cos_sin_cache), settings, n_positions)
        module.max_position_embeddings = n_positions
        module.cos_sin_cache = module._compute_cos_sin_cache().to(module.cos_sin_cache)


def _too_short(name: str, length: int, settings: Settings, n_positions: int) -> UnsupportedError:
    """The error for a table that is too short."""
    ends = f"the language model's {name} ends at {length} position IDs"
    lower = f"Lower --max-model-len to {settings.max_model_len(length)}"
    if settings.position_ids == "compact":
        return UnsupportedError(f"{ends}, and compact ones may run to {n_positions}. {lower}.")
    return UnsupportedError(f"{ends}, and original ones may run to {n_positions}. {lower}, or write {COMPACT}.")
