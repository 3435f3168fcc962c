"""Changes with which vLLM's Qwen4-Exp, whose language model it has only for GPUs, runs on a CPU in float32."""

# pyright: reportMissingImports=false

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu


def run_qwen4_exp_on_cpus() -> None:
    """Compute with PyTorch in float32 what is slow in Triton's interpreter, or what vLLM's kernels take only in
    bfloat16. The embeddings of n-grams, their convolution and its states stay vLLM's."""
    from vllm.models.qwen4_exp.nvidia import hyperconnection, model, ple_layer

    model.HyperConnectionConfig = in_float32
    model.Qwen3_VisionTransformer = tower
    hyperconnection.grouped_gemma_rmsnorm = normed
    hyperconnection.hc_silu = lambda x, n: silu(x / n)
    hyperconnection.hc_gate_mix = lambda x, gate, n: (x * gate.sigmoid()).unflatten(-1, (n, -1)).mean(-2)
    hyperconnection.hc_combine = combined
    hyperconnection.hc_combine_norm = combined_and_normed
    ple_layer.ple_gate = gated


def in_float32(**settings: Any) -> Any:
    from vllm.models.qwen4_exp.common.hyperconnection import HyperConnectionConfig

    return HyperConnectionConfig(**{**settings, "params_dtype": torch.float32})


def tower(*parts: Any, **settings: Any) -> Any:
    """Return vLLM's tower with transformers' epsilon instead of the language model's; published checkpoints share
    one."""
    from vllm.model_executor.models.qwen3_vl import Qwen3_VisionTransformer

    return Qwen3_VisionTransformer(*parts, **{**settings, "norm_eps": 1e-6})


def normed(x: Tensor, weight: Tensor, epsilon: float, n: int) -> Tensor:
    """Return `n` streams, each divided by its root mean square."""
    streams = x.unflatten(-1, (n, -1))
    return (streams * (streams.square().mean(-1, keepdim=True) + epsilon).rsqrt()).flatten(-2) * (1 + weight)


def combined(streams: Tensor, output: Tensor, injection: Tensor | None, n: int) -> Tensor:
    """Add the output of a layer to each of `n` streams, with a weight per stream."""
    weights = torch.ones(len(streams), n) if injection is None else 2 * (injection / n).sigmoid()
    return streams + (output[:, None] * weights[..., None]).flatten(-2)


def combined_and_normed(
    streams: Tensor, output: Tensor, injection: Tensor | None, weight: Tensor, epsilon: float, n: int
) -> tuple[Tensor, Tensor]:
    made = combined(streams, output, injection, n)
    return made, normed(made, weight, epsilon, n)


def gated(
    key: Tensor, value: Tensor, streams: Tensor, of_key: Tensor, of_query: Tensor, of_value: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return the values of n-grams, gated for each stream by how well their keys match it, and the same normalised."""
    n = streams.shape[-1] // value.shape[-1]
    fit = normed(key, of_key, epsilon, n) * normed(streams, of_query, epsilon, n)
    fit = fit.unflatten(-1, (n, -1)).sum(-1) / math.sqrt(value.shape[-1])
    gate = (fit.abs().clamp_min(1e-6).sqrt() * fit.sign()).sigmoid()
    let_in = (gate[..., None] * value[:, None]).flatten(-2)
    return let_in, normed(let_in, of_value, epsilon, n)
