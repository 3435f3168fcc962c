"""What a language model's code says of its attention, and its config may not: what it does with masks, and how it
rotates queries and keys by their positions (by halves, interleaved or in part)."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache
from textwrap import dedent
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters.wrappers import unwrap_model, unwrap_part

#: The function of transformers that makes the masks of sliding-window layers.
MAKES_WINDOWS = "create_sliding_window_causal_mask"
MASK = "attention_mask"
#: The name of the function in transformers, where each model's module has its own; and its name for Qwen-VL in older
#: versions, where angles come in sections.
ROTATE, ROTATE_SECTIONS = "apply_rotary_pos_emb", "apply_multimodal_rotary_pos_emb"

#: Rotates queries and keys, (batch, heads, tokens, width), by cosines and sines, (batch, tokens, rotated width).
Rotation = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def makes_windows(language_model: nn.Module) -> bool:
    """Whether the language model's forward makes masks with a sliding window."""
    forward = inspect.unwrap(type(unwrap_part(unwrap_model(language_model))).forward)
    return MAKES_WINDOWS in _names(forward.__code__)


def rewrites_masks(layers: nn.ModuleList) -> str | None:
    """The class of the first attention module that computes a mask of its own, as sparse attention does; None if all
    use the mask that they are given."""
    classes = {type(module): None for layer in layers for module in layer.modules()}
    return next((cls.__name__ for cls in classes if cls.__name__.endswith("Attention") and _rewrites(cls)), None)


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function and those inside it refer to."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def _rewrites(attention: Any) -> bool:
    """Whether an attention class's forward assigns its mask, or passes it to one of its own methods or modules. False
    for a class without source code."""
    tree = _forward_of(attention)
    return tree is not None and any(_is_mask(node, ast.Store) or _hands_on(node) for node in ast.walk(tree))


def _is_mask(node: ast.AST, context: type[ast.expr_context]) -> bool:
    return isinstance(node, ast.Name) and node.id == MASK and isinstance(node.ctx, context)


def _hands_on(node: ast.AST) -> bool:
    """Whether a node is a call of an attribute of `self` with the mask among its arguments."""
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("self."):
        return False
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    return any(_is_mask(part, ast.Load) for argument in given for part in ast.walk(argument))


@cache
def rotation_of(attention: Any) -> Rotation | None:
    """The function with which an attention class rotates all its queries and keys; None if its forward does not call
    one once and unconditionally, or its source code is not available."""
    if ROTATE_SECTIONS in inspect.unwrap(attention.forward).__code__.co_names:
        return _by_halves
    if (tree := _forward_of(attention)) is None:
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


def _forward_of(attention: Any) -> ast.Module | None:
    """The syntax tree of an attention class's forward; None without source code."""
    try:
        return ast.parse(dedent(inspect.getsource(inspect.unwrap(attention.forward))))
    except (OSError, TypeError):
        return None
