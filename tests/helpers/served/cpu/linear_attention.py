"""Gated linear attention for vLLM on a CPU in float32, token by token: vLLM's own CPU kernel takes only bfloat16."""

# pyright: reportMissingImports=false

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d, normalize, silu, softplus


def use_float32_kernel() -> None:
    """Replace vLLM's function. Call it before a model is built, which makes the function an operator."""
    from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention
    from vllm.utils.torch_utils import LayerNameType

    attend.__annotations__["layer_name"] = LayerNameType  # torch derives the operator's signature from it
    gdn_attention.cpu_gdn_attention_core = attend


def attend(mixed_qkv: Tensor, b: Tensor, a: Tensor, core_attn_out: Tensor, layer_name: Any) -> None:
    """Write the step's outputs, and every request's state where vLLM keeps it."""
    from vllm.forward_context import get_forward_context
    from vllm.utils.torch_utils import _resolve_layer_name

    context: Any = get_forward_context()
    layer = context.no_compile_layers[_resolve_layer_name(layer_name)]
    if context.attn_metadata is None:  # vLLM is measuring memory
        return
    metadata = context.attn_metadata[layer.prefix]
    weight = getattr(layer.conv1d, "_cpu_unpacked_conv_weight", layer.conv1d.weight)
    weight = weight.reshape(len(weight), 1, -1)
    n_before = weight.shape[-1] - 1
    kept = (-layer.A_log.float().exp() * softplus(a.float() + layer.dt_bias)).exp()

    def advance(rows: Tensor, before: Tensor, state: Tensor, after: Sequence[Tensor] = ()) -> Tensor:
        """Attend from tokens, given the inputs before them, and return all inputs. `state` is changed, and copied to
        `after` after each token."""
        window = torch.cat([before, mixed_qkv[rows]])
        mixed = silu(conv1d(window.T[None], weight, layer.conv1d.bias, groups=len(weight)))[0].T
        query, key, value = (part[0] for part in layer.rearrange_mixed_qkv(mixed.contiguous()))
        for t, row in enumerate(rows.tolist()):
            one, now = slice(t, t + 1), slice(row, row + 1)
            core_attn_out[now] = recurrent(query[one], key[one], value[one], kept[now], b[now].sigmoid(), state)
            if after:
                after[t].copy_(state)
        return window

    drafted = metadata.spec_sequence_masks is not None
    if metadata.num_decodes + metadata.num_prefills:
        places = metadata.non_spec_token_indx if drafted else torch.arange(len(mixed_qkv))
        starts = metadata.non_spec_query_start_loc.tolist()
        for i in range(metadata.num_decodes + metadata.num_prefills):
            inputs, state = (cache[metadata.non_spec_state_indices_tensor[i]] for cache in layer.kv_cache)
            if i >= metadata.num_decodes and not metadata.has_initial_state[i]:
                inputs.zero_()
                state.zero_()
            window = advance(places[starts[i] : starts[i + 1]], inputs[:n_before], state)
            inputs[:n_before] = window[len(window) - n_before :]
    # A draft may be rejected, so the state after each of its tokens is kept, and the inputs before all of them.
    for i in range(metadata.num_spec_decodes):
        start, end = metadata.spec_query_start_loc[i : i + 2].tolist()
        slots, n_accepted = metadata.spec_state_indices_tensor[i].tolist(), int(metadata.num_accepted_tokens[i])
        inputs, states = layer.kv_cache[0][slots[0]], [layer.kv_cache[1][slot] for slot in slots]
        before = inputs[n_accepted - 1 :][:n_before].clone()
        places = torch.arange(start, end)
        if metadata.spec_token_indx is not None:
            places = metadata.spec_token_indx[start:end]
        window = advance(places, before, states[n_accepted - 1].clone(), states)
        inputs[: len(window) - 1] = window[1:]


def recurrent(query: Tensor, key: Tensor, value: Tensor, kept: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """The gated delta rule, (tokens, value heads, width); `state` (value heads, value width, key width) is changed."""
    group = value.shape[1] // key.shape[1]
    query = (normalize(query, dim=-1) * query.shape[-1] ** -0.5).repeat_interleave(group, 1)
    key = normalize(key, dim=-1).repeat_interleave(group, 1)
    out = torch.empty_like(value)
    for t in range(len(value)):
        state *= kept[t, :, None, None]
        missing = (value[t] - torch.einsum("hvk,hk->hv", state, key[t])) * beta[t, :, None]
        state += missing[..., None] * key[t, :, None]
        out[t] = torch.einsum("hvk,hk->hv", state, query[t])
    return out
