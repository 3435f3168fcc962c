"""How a language model's attention rotates queries and keys by their positions: by halves, interleaved or in part.

This is read from its code, because its config does not always say.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from functools import cache
from textwrap import dedent
from typing import Any

import torch
from torch import Tensor

#: The name of the function in transformers, where each model's module has its own; and its name for Qwen-VL in older
#: versions, where angles come in sections.
ROTATE, ROTATE_SECTIONS = "apply_rotary_pos_emb", "apply_multimodal_rotary_pos_emb"

#: Rotates queries and keys, (batch, heads, tokens, width), by cosines and sines, (batch, tokens, rotated width).
Rotation = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@cache
def rotation_of(attention: Any) -> Rotation | None:
    """The function with which an attention class rotates all its queries and keys; None if its forward does not call
    one once and unconditionally, or its source code is not available."""
    function = inspect.unwrap(attention.forward)
    if ROTATE_SECTIONS in function.__code__.co_names:
        return _by_halves
    try:
        tree = ast.parse(dedent(inspect.getsource(function)))
    except (OSError, TypeError):
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
