"""A tiny MiniMax M3 in its published format, and changes with which vLLM's runs on a CPU in float32.

Its layers have no experts and attend to everything, like block-choosing layers in prompts of up to 2,048 tokens.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from helpers.served.family import M_ROPE_ENDS, Family, Far
from helpers.served.models import CHAT, N_LAYERS, PATCH, decoder, save, tokenizer, tower
from helpers.served.native.packed import SIZES, rewrite

NAME = "TokenPruneMiniMaxM3"
MINIMAX_IMAGE, MINIMAX_VIDEO = "]<]image[>[", "]<]video[>["
ENDS = ("]<]start of image[>[", "]<]end of image[>[")
#: Names of parts in transformers -> in published checkpoints.
PUBLISHED = {
    "lm_head": "language_model.lm_head",
    "model.language_model": "language_model.model",
    "model.vision_tower.embeddings.proj": "vision_tower.vision_model.embeddings.patch_embedding",
    "model.vision_tower.layers": "vision_tower.vision_model.encoder.layers",
    "model.vision_tower.pre_layrnorm": "vision_tower.vision_model.pre_layrnorm",
    "model.multi_modal_projector.linear": "multi_modal_projector.linear",
    "model.multi_modal_projector.merge_linear": "patch_merge_mlp.linear",
}


def save_minimax_m3(folder: Path, **settings: Any) -> None:
    """MiniMax M3 with up to 49 visual tokens, each of 2 x 2 patches."""
    words = tokenizer(MINIMAX_IMAGE, MINIMAX_VIDEO, *ENDS)
    config = published_config(words, settings)
    processor = transformers.MiniMaxM3VLProcessor(
        image_processor=transformers.MiniMaxM3VLImageProcessor(size=SIZES),
        tokenizer=words,
        video_processor=transformers.MiniMaxM3VLVideoProcessor(max_pixels=SIZES["longest_edge"]),
        chat_template=CHAT.replace("IMAGE", MINIMAX_IMAGE),
    )
    model = transformers.MiniMaxM3SparseForConditionalGeneration(transformers.MiniMaxM3VLConfig(**deepcopy(config)))
    save(model, processor, folder)
    save_file(published_weights(model), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    rewrite(folder / "processor_config.json", with_most_pixels)


def published_config(words: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the config.json of a tiny model. words: its tokenizer. settings: those of its language model."""
    blocks = {"sparse_num_index_heads": 2, "sparse_index_dim": 32, "sparse_topk_blocks": 16, "sparse_block_size": 128}
    text = decoder(len(words), hidden_act="swigluoai", rope_theta=10000.0, **settings)
    text |= {
        "dense_intermediate_size": 96,
        "shared_intermediate_size": 48,
        "rotary_dim": 16,
        "partial_rotary_factor": 0.5,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_layer_freq": [0] * N_LAYERS,
        "sparse_attention_config": {**blocks, "sparse_local_block": 1, "sparse_attention_freq": [0] * N_LAYERS},
    }
    merging = {"image_token_compression_method": "patch_merge", "spatial_merge_size": 2, "temporal_patch_size": 2}
    own = {"num_channels": 3, "layer_norm_eps": 1e-5, "hidden_act": "gelu", "rope_theta": 10000.0}
    return {
        "architectures": ["MiniMaxM3SparseForConditionalGeneration"],
        "model_type": "minimax_m3_vl",
        "text_config": text,
        "vision_config": tower(14 * PATCH, **own, img_token_compression_config=merging, vision_segment_max_frames=4),
        "image_token_index": words.convert_tokens_to_ids(MINIMAX_IMAGE),
        "video_token_index": words.convert_tokens_to_ids(MINIMAX_VIDEO),
        "projector_hidden_size": 96,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "torch_dtype": "float32",
    }


def published_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of transformers' model under the names of published checkpoints."""
    found: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        part = max((one for one in PUBLISHED if name.startswith(one)), key=len)
        name = PUBLISHED[part] + name.removeprefix(part)
        if ".gate_up_proj." in name:
            for half, rows in zip(("gate", "up"), weight.chunk(2), strict=True):
                found[name.replace("gate_up", half)] = rows.contiguous()
        else:
            found[name] = weight.contiguous()
    return found


def with_most_pixels(written: dict[str, Any]) -> dict[str, Any]:
    """Return a processor's config with an image's maximum pixels under the name that vLLM's own processor reads."""
    return {**written, "image_processor": {**written["image_processor"], "max_pixels": SIZES["longest_edge"]}}


@cache
def attend_to_everything() -> None:
    """Let tokenprune patch transformers' model with position IDs that have gaps, although its attention has code that
    chooses blocks, because no layer runs that code here."""
    from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl

    attention: Any = modeling_minimax_m3_vl.MiniMaxM3VLAttention
    attend = attention.forward

    def forward(self: Any, *args: Any, **named: Any) -> Any:
        assert self.indexer is None
        return attend(self, *args, **named)

    attention.forward = forward


def see_images_apart(model: Any) -> None:
    """Correct transformers 5.19, in which patches attend to all images of a call, instead of only to their own
    image."""
    sizes: list[int] = []

    def before_tower(module: nn.Module, args: Any, kwargs: Any) -> None:
        sizes[:] = kwargs["grid_thw"].prod(-1).tolist()

    def before_layer(module: nn.Module, args: Any, kwargs: Any) -> Any:
        image = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        return args, {**kwargs, "attention_mask": (image[:, None] == image)[None, None]}

    vision = model.model.vision_tower
    vision.register_forward_pre_hook(before_tower, with_kwargs=True)
    for layer in vision.layers:
        layer.register_forward_pre_hook(before_layer, with_kwargs=True)


def run_minimax_m3_on_cpus() -> None:
    """Compute in PyTorch what vLLM has only GPU kernels for, or what is slow in Triton's interpreter."""
    from vllm import _custom_ops
    from vllm.models.minimax_m3.common import vision_tower
    from vllm.models.minimax_m3.nvidia import model

    _custom_ops.fused_minimax_m3_qknorm_rope_kv_insert = norm_and_rotate
    model.MiniMAXGemmaRMSNorm.forward = add_and_norm
    vision_tower.triton_mrope = rotate_by_axis


def add_and_norm(norm: Any, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
    """Return the norm of `x`, or of its sum with the residual, and that sum."""
    total = x if residual is None else x + residual
    normed = rms_norm(total, norm.weight.shape, 1 + norm.weight, norm.variance_epsilon)
    return normed if residual is None else (normed, total)


def norm_and_rotate(
    joint: Tensor,
    of_queries: Tensor,
    of_keys: Tensor,
    table: Tensor,
    ids: Tensor,
    n_queries: int,
    n_keys: int,
    n_rotated: int,
    epsilon: float,
    **_: Any,
) -> None:
    """In place, in rows of queries, keys and values per token. Rotates the first `n_rotated` numbers of each head."""
    cos, sin = (part[:, None] for part in table[ids].chunk(2, -1))
    heads = joint.view(len(joint), -1, len(of_queries))
    for part, weight in ((heads[:, :n_queries], of_queries), (heads[:, n_queries:][:, :n_keys], of_keys)):
        normed = rms_norm(part, weight.shape, 1 + weight, epsilon)
        part.copy_(torch.cat([turned(normed[..., :n_rotated], cos, sin), normed[..., n_rotated:]], -1))


def rotate_by_axis(
    queries: Tensor, keys: Tensor, cos: Tensor, sin: Tensor, sections: list[int], width: int, n_rotated: int, **_: Any
) -> None:
    """Rotate rows of a vision tower's heads in place: the sections of their first `n_rotated` numbers by time, row and
    column, each with its own plane of `cos` and `sin`."""
    by_axis = [
        torch.cat([plane[axis] for axis, plane in enumerate(part.split(sections, -1))], -1)[:, None]
        for part in (cos, sin)
    ]
    for states in (queries, keys):
        first = states.view(len(states), -1, width)[..., :n_rotated]
        first.copy_(turned(first, *by_axis))


def turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of numbers, one from each half."""
    first, second = states.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


FAMILIES = (
    Family(
        "minimax_m3",
        "TokenPruneMiniMaxM3",
        save_minimax_m3,
        MINIMAX_IMAGE,
        far=Far(256, 8, (196, 196), raises=M_ROPE_ENDS),
    ),
)
