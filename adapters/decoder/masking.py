"""What a language model's code does with attention masks, which its config may not say."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from textwrap import dedent
from types import CodeType
from typing import Any

from torch import nn

from tokenprune.adapters.wrappers import unwrap_model, unwrap_part

#: The function of transformers that makes the masks of sliding-window layers.
MAKES_WINDOWS = "create_sliding_window_causal_mask"
MASK = "attention_mask"


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
    try:
        tree = ast.parse(dedent(inspect.getsource(inspect.unwrap(attention.forward))))
    except (OSError, TypeError):
        return False
    return any(_is_mask(node, ast.Store) or _hands_on(node) for node in ast.walk(tree))


def _is_mask(node: ast.AST, context: type[ast.expr_context]) -> bool:
    return isinstance(node, ast.Name) and node.id == MASK and isinstance(node.ctx, context)


def _hands_on(node: ast.AST) -> bool:
    """Whether a node is a call of an attribute of `self` with the mask among its arguments."""
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("self."):
        return False
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    return any(_is_mask(part, ast.Load) for argument in given for part in ast.walk(argument))
