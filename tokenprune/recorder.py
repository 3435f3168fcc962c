"""Records what the vision tower shows of each picture, through callbacks that hooks.py puts on it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.attention import VisionAttention
from tokenprune.errors import PruningError
from tokenprune.layout import Layout
from tokenprune.vision import EncodedImage, Modality


class VisionRecorder:
    """Collects the declared statistics, and nothing else, while pictures are encoded."""

    def __init__(self, adapter: ModelAdapter, needs: frozenset[str]) -> None:
        self.adapter, self.needs = adapter, needs
        self.taps: set[str] = set()  # what after_tap is to hear of in every call of the tower
        self._call: dict[str, Any] = {}  # what the tower's current call has shown
        self._tiles: dict[str, list[Any]] = {}  # by statistic, one entry per tile, of all calls since `begin`

    def begin(self) -> None:
        """A batch of pictures is about to be encoded."""
        self._tiles = {name: [] for name in self.needs - {"cls", "text_attention"}}

    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._call = {"tower": named_arguments(module, args, kwargs)}

    def before_attention(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._call["attention"] = kwargs

    def after_tap(self, name: str, output: Tensor) -> None:
        self._call[name] = output.detach()

    def after_tower(self, module: nn.Module, args: Any, output: Any) -> None:
        call, self._call = self._call, {}
        for name in {"pixels", "colors"} & self._tiles.keys():
            self._tiles[name] += self.adapter.tile_pixels(call["tower"])
        if "vision_attention" in self._tiles:
            if not self.taps <= call.keys():
                raise PruningError(
                    f"{type(self.adapter).__name__}.attention_taps names modules that the vision tower does not call, "
                    f"so the attention that the strategy needs is unknown. See adapters/README.md."
                )
            self._tiles["vision_attention"] += zip(*self.adapter.tile_heads(call), strict=True)

    def images(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[EncodedImage]:
        """The pictures that were encoded since `begin`."""
        tiles, self._tiles = self._tiles, {}
        layouts = self.adapter.layouts(modality, arguments, output)
        images, start = [], 0
        for layout in layouts:
            stop = start + layout.n_tiles
            statistics = {name: self._statistic(name, found[start:stop], layout) for name, found in tiles.items()}
            images.append(EncodedImage(layout, statistics))
            start = stop
        if any(len(found) != start for found in tiles.values()):
            raise PruningError(
                f"{type(self.adapter).__name__} counts {start} tiles, and the vision tower was given "
                f"{max(map(len, tiles.values()))}. Remove the patch, and report it with your transformers version."
            )
        return images

    def _statistic(self, name: str, tiles: list[Any], layout: Layout) -> Any:
        if name == "pixels":
            return torch.stack(tiles).detach()
        if name == "colors":
            return self.adapter.colors(torch.stack(tiles).detach())
        queries, keys, *real = (torch.stack(part) for part in zip(*tiles, strict=True))
        return VisionAttention(queries, keys, self.adapter.attention_scale, self.adapter.n_prefix, layout, *real)


def named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a module's call by name, in a new dict."""
    return bound(inspect.signature(module.forward), args, kwargs) if args else dict(kwargs)


def bound(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, those caught by ** included."""
    named = dict(signature.bind_partial(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named
