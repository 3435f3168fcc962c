"""FlashAttention without its package: in plain PyTorch, so that transformers' handling of masks and position IDs for it
runs on a CPU; on a GPU, PyTorch's own copy of the kernels."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import modeling_flash_attention_utils as utils


@pytest.fixture
def flash_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make attn_implementation="flash_attention_2" work, on a CPU too."""

    def functions(*_: Any, **__: Any) -> Any:
        return (flash, varlen, None, utils._pad_input, utils._unpad_input), (settings, settings)

    monkeypatch.setattr(utils, "lazy_import_flash_attention", functions)
    monkeypatch.setattr(utils, "fa_peft_integration_check", lambda query, key, value, _: (query, key, value))


def settings(*, is_causal: bool, softmax_scale: float | None = None, **_: Any) -> dict[str, Any]:
    return {"causal": is_causal, "scale": softmax_scale}


def flash(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float | None) -> Tensor:
    """Attention of (rows, length, heads, width). The last query sees the last key, as in FlashAttention since 2.1."""
    if query.is_cuda:
        return kernel(query, key, value, None, None, query.shape[1], key.shape[1], causal, scale)
    n_new, n_all, groups = query.shape[1], key.shape[1], query.shape[2] // key.shape[2]
    seen = torch.ones(n_new, n_all, dtype=torch.bool).tril(n_all - n_new) if causal else None
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    key, value = (one.repeat_interleave(groups, 1) for one in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, seen, scale=scale)
    return out.transpose(1, 2)


def varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    causal: bool,
    scale: float | None,
) -> Tensor:
    """Attention of concatenated sequences, (all lengths, heads, width)."""
    if query.is_cuda:
        longest, longest_key = (int(lengths.diff().max()) for lengths in (cu_seqlens_q, cu_seqlens_k))
        return kernel(query, key, value, cu_seqlens_q, cu_seqlens_k, longest, longest_key, causal, scale)
    queries, keys = (lengths.diff().tolist() for lengths in (cu_seqlens_q, cu_seqlens_k))
    parts = zip(query.split(queries), key.split(keys), value.split(keys), strict=True)
    return torch.cat([flash(q[None], k[None], v[None], causal, scale)[0] for q, k, v in parts])


def kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor | None,
    key_starts: Tensor | None,
    longest: int,
    longest_key: int,
    causal: bool,
    scale: float | None,
) -> Tensor:
    call = torch.ops.aten._flash_attention_forward
    return call(query, key, value, starts, key_starts, longest, longest_key, 0.0, causal, False, scale=scale)[0]
