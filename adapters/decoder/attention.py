"""How the attention of a language model's decoder layers is read."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.decoder.config import forward_tree
from tokenprune.encoded import CapturePoints
from tokenprune.errors import UnsupportedError

#: The parts that an attention may have whose scores are plain products of queries and keys.
KNOWN_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm", "rotary_emb"}

#: The name of the function that rotates queries and keys, of which each model's module has its own; and its name for
#: Qwen-VL in older versions of transformers, where angles come in sections.
ROTATE, ROTATE_SECTIONS = "apply_rotary_pos_emb", "apply_multimodal_rotary_pos_emb"

#: Rotates queries and keys, (batch, heads, tokens, width), by cosines and sines, (batch, tokens, rotated width).
Rotation = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

#: The function in the module of a model that lengthens the queries of late positions (Ministral 3).
LENGTHENS = "get_llama_4_attn_scale"


def text_capture_points(layer: Any) -> CapturePoints:
    """Return the modules that expose one decoder layer's attention. Raises UnsupportedError for an attention whose
    queries and keys are not projected, perhaps normed, rotated by position, and then multiplied as they are."""
    reason = _unreadable(layer)
    if reason is not None:
        raise UnsupportedError(f"{reason}, so a text-guided strategy cannot read it. Use one that prunes before it.")
    attention = layer.self_attn
    queries, keys = (getattr(attention, f"{part}_norm", getattr(attention, f"{part}_proj")) for part in "qk")
    return CapturePoints(attention, {"queries": queries, "keys": keys, "values": attention.v_proj})


def query_projection(layer: Any) -> Any:
    """Return the module that projects a decoder layer's queries, each token's on its own."""
    return layer.self_attn.q_proj


def output_projection(layer: Any) -> Any:
    """Return the module that is given what a decoder layer's attention makes of the values, heads side by side."""
    return layer.self_attn.o_proj


def unreadable_attention(layers: Iterable[Any]) -> str | None:
    """Return why some decoder layer's attention cannot be read by text-guided strategies; None if all layers' can."""
    return next((reason for reason in map(_unreadable, layers) if reason is not None), None)


def _unreadable(layer: Any) -> str | None:
    attention = getattr(layer, "self_attn", None)
    if attention is None:
        return f"{type(layer).__name__} has no self_attn"
    modules = (name for name, module in attention._modules.items() if module is not None)
    name, parts = type(attention).__name__, {*modules, *attention._parameters}
    if not {"q_proj", "k_proj", "v_proj"} <= parts:
        return f"{name} has no separate query, key and value projections"
    if getattr(attention, "attn_logit_softcapping", None) is not None:
        return f"{name} caps its scores"
    if parts - KNOWN_PARTS or not hasattr(attention, "scaling"):
        return f"{name} computes attention in its own way ({', '.join(sorted(parts - KNOWN_PARTS)) or 'no scaling'})"
    if rotation_of(type(attention)) is None:
        return f"{name} does not rotate all its queries and keys by their positions"
    return None


def text_heads(
    layer: Any, call: Mapping[str, Any]
) -> tuple[Float[Tensor, "batch heads tokens width"], Float[Tensor, "batch key_heads tokens width"]]:
    """Return a decoder layer's queries and keys with rotary embeddings, from what its capture points returned and the
    attention's arguments under "attention".

    Norms return separate heads, in either order; projections return them concatenated.
    """
    attention = layer.self_attn
    rotate = rotation_of(type(attention))
    assert rotate is not None  # the capture points exist
    cos, sin = text_rotation(layer, call)
    n_tokens, parts = cos.shape[-2], [call["queries"], call["keys"]]
    # Where heads share keys, only one of the two can have as many heads as there are tokens.
    if any(part.ndim == 4 and part.shape[2] == n_tokens != part.shape[1] for part in parts):
        parts = [part.transpose(1, 2) for part in parts]
    split = [part.reshape(len(part), n_tokens, -1, attention.head_dim).transpose(1, 2) for part in parts]
    width = getattr(attention, "rotary_ndims", attention.head_dim)  # StableLM passes `rotate` a part of each head
    rotated = rotate(split[0][..., :width], split[1][..., :width], cos, sin)
    if width < attention.head_dim:
        rotated = (torch.cat([part, whole[..., width:]], -1) for part, whole in zip(rotated, split, strict=True))
    queries, keys = rotated
    return _lengthened(attention, queries, call["attention"]), keys


def text_values(layer: Any, call: Mapping[str, Any]) -> Float[Tensor, "batch key_heads tokens width"]:
    """Return a decoder layer's values, from what its capture points returned."""
    values = call["values"]
    return values.reshape(*values.shape[:2], -1, layer.self_attn.head_dim).transpose(1, 2)


def text_rotation(layer: Any, call: Mapping[str, Any]) -> Float[Tensor, "two rows tokens width"]:
    """Return the cosines and sines by which a decoder layer rotates, from its attention's arguments."""
    cos, sin = (_one_angle(layer.self_attn, part) for part in call["attention"]["position_embeddings"])
    return torch.stack([cos, sin])


def text_attention_scale(layer: Any) -> float:
    """Return the factor of q . k in a decoder layer's attention."""
    return layer.self_attn.scaling


def _lengthened(
    attention: Any, queries: Float[Tensor, "batch heads tokens width"], arguments: Mapping[str, Any]
) -> Float[Tensor, "batch heads tokens width"]:
    """The queries as the attention multiplies them with the keys, given its arguments."""
    factor = getattr(sys.modules[type(attention).__module__], LENGTHENS, None)
    if factor is None:
        return queries
    rope = attention.config.rope_parameters
    beta, length = rope["llama_4_scaling_beta"], rope["original_max_position_embeddings"]
    return queries * factor(arguments["position_ids"], beta, length).to(queries)


def _one_angle(
    attention: Any, embedding: Float[Tensor, "components rows tokens width"] | Float[Tensor, "rows tokens width"]
) -> Float[Tensor, "rows tokens width"]:
    """The position embedding by which the attention rotates. In older transformers, the attention of Qwen2-VL and
    Qwen2.5-VL gets one for each component of the position IDs, and takes a section of the angles from each in turn."""
    if embedding.ndim == 3:
        return embedding
    sections = embedding.split(attention.config.rope_parameters["mrope_section"] * 2, -1)
    return torch.cat([section[i % len(section)] for i, section in enumerate(sections)], -1)


@cache
def rotation_of(attention: Any) -> Rotation | None:
    """The function with which an attention class rotates all its queries and keys; None if its forward does not call
    one once and unconditionally, or its source code is not available."""
    if ROTATE_SECTIONS in inspect.unwrap(attention.forward).__code__.co_names:
        return _by_halves
    if (tree := forward_tree(attention)) is None:
        return None
    forward = tree.body[0]
    assert isinstance(forward, ast.FunctionDef)
    calls = [node for node in ast.walk(forward) if _rotates(node)]
    unconditional = [node for statement in forward.body if not _branches(statement) for node in ast.walk(statement)]
    if len(calls) != 1 or calls[0] not in unconditional:
        return None
    return getattr(sys.modules[attention.__module__], ROTATE, None)


def _by_halves(queries: Tensor, keys: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    def rotate(states: Tensor) -> Tensor:
        first, second = states.chunk(2, -1)
        return states * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]

    return rotate(queries), rotate(keys)


def _rotates(node: ast.AST) -> bool:
    """Whether a node is a call of the function with queries, keys, cosines and sines, and nothing else."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == ROTATE
        and len(node.args) == 4
        and not node.keywords
    )


def _branches(statement: ast.stmt) -> bool:
    return isinstance(statement, (ast.If, ast.For, ast.While, ast.Try, ast.With))
