"""Records what the vision tower shows of each picture, through callbacks that hooks.py puts on it."""

from __future__ import annotations

import inspect
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.attention import VisionAttention
from tokenprune.errors import PruningError
from tokenprune.vision import EncodedImage


class VisionRecorder:
    """Collects the declared statistics, and nothing else, of every call of the vision tower.

    images: the pictures of all calls since `images` was last emptied.
    """

    def __init__(self, adapter: ModelAdapter, needs: frozenset[str]) -> None:
        self.adapter, self.needs = adapter, needs
        self.images: list[EncodedImage] = []
        self._seen: dict[str, Tensor] = {}  # by the current call

    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._seen = {"pixels": self.adapter.pixels(named_arguments(module, args, kwargs))}

    def after_queries(self, module: nn.Module, args: Any, output: Float[Tensor, "images tokens width"]) -> None:
        self._seen["queries"] = output.detach()

    def after_keys(self, module: nn.Module, args: Any, output: Float[Tensor, "images tokens width"]) -> None:
        self._seen["keys"] = output.detach()

    def after_tower(self, module: nn.Module, args: Any, output: Any) -> None:
        seen, self._seen = self._seen, {}
        images = [
            EncodedImage(grid, {name: self._statistic(name, seen, i) for name in self.needs - {"cls"}})
            for i, grid in enumerate(self.adapter.grids(seen["pixels"]))
        ]
        self.adapter.remember(output, images)
        self.images += images

    def _statistic(self, name: str, seen: dict[str, Tensor], picture: int) -> Any:
        if name == "pixels":
            return seen["pixels"][picture].detach()
        if "queries" not in seen or "keys" not in seen:
            raise PruningError(
                f"{type(self.adapter).__name__}.attention_projections names modules that the vision tower does not "
                f"call, so the attention that the strategy needs is unknown. See adapters/README.md."
            )
        shape = self.adapter.attention_shape
        queries, keys = (
            rearrange(seen[part][picture], "token (head width) -> head token width", head=shape.n_heads)
            for part in ("queries", "keys")
        )
        return VisionAttention(queries, keys, shape.scale, shape.n_prefix)


def named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a module's call by name, in a new dict."""
    if not args:
        return dict(kwargs)
    signature = inspect.signature(module.forward)
    named = dict(signature.bind_partial(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named
