"""A tiny Qwen4-Exp, whose language model vLLM runs only on GPUs, and changes with which it runs on a CPU in float32."""

# pyright: reportMissingImports=false

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import silu

from helpers.served.models import CHAT, LINEAR, N_LAYERS, QWEN_IMAGE, WORDS, decoder, save, tokenizer
from helpers.served.native.packed import rewrite
from helpers.served.reference import CONVERTED

#: The indexer of transformers' model, which chooses more tokens than prompts have.
INDEXER = {"n_heads": 2, "kv_heads": 1, "head_dim": 32, "budget": 1024, "compress_ratio": 4}


def save_qwen4_exp(folder: Path, ngrams: bool = False, **settings: Any) -> None:
    """Qwen4-Exp with up to 49 visual tokens, all of which every query may attend to: vLLM's has no indexer. ngrams:
    whether the first decoder layer embeds n-grams of token IDs."""
    patch, marks = 16, ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(*marks, *WORDS)
    start, end, image, video = words.convert_tokens_to_ids(list(marks))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    text = decoder(len(words), rope_parameters={**rope, "partial_rotary_factor": 0.25}, **experts, **LINEAR)
    del text["intermediate_size"]
    text |= {
        "layer_types": ["linear_attention", "indexed_attention", "linear_attention"],
        "output_gate_type": "silu",
        "shared_expert_intermediate_size": 48,
        "hc_count": 2,
        "hc_lowrank": 14,  # with the weights beside them, the 16 to which vLLM pads: 0.34 misses weights for padding
        "ple_layer_ids": [1] if ngrams else [],
        "heads_per_ngram": 2,
        "ngram_vocab_size_base": 500,
        "split_ngram_parts": 2,
        **{f"indexer_{name}": value for name, value in INDEXER.items()},
        **settings,
    }
    vision = {"depth": N_LAYERS, "num_heads": 2, "patch_size": patch, "hidden_size": 64, "intermediate_size": 96}
    vision |= {"out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": []}
    config = transformers.Qwen4ExpConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    sizes = {"shortest_edge": (4 * patch) ** 2, "longest_edge": (14 * patch) ** 2}
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=patch, size=sizes, **halves),
        tokenizer=words,
        video_processor=transformers.Qwen3VLVideoProcessor(patch_size=patch),
        chat_template=CHAT.replace("IMAGE", QWEN_IMAGE),
    )
    save(transformers.Qwen4ExpForConditionalGeneration(config), processor, folder / CONVERTED)
    shutil.copytree(folder / CONVERTED, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    dense = {name: weight for name, weight in weights.items() if ".indexer." not in name}
    save_file(dense, folder / "model.safetensors", {"format": "pt"})
    rewrite(folder / "config.json", without_indexer)


def without_indexer(written: dict[str, Any]) -> dict[str, Any]:
    text = {name: value for name, value in written["text_config"].items() if not name.startswith("indexer_")}
    return {**written, "text_config": text}


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
