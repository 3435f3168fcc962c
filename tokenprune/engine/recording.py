"""Records what the vision tower shows of each picture, through callbacks that hooks.py puts on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.engine.call import PerThread, named_arguments, uncompiled
from tokenprune.engine.tower import TowerPruning
from tokenprune.errors import PruningError
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.encoded import EncodedImage, Modality
from tokenprune.tokens.layout import Layout


class Seen(PerThread):
    """call: what the tower's current call has shown.
    tiles: by statistic, one entry per tile, of all calls since `VisionRecorder.begin`.
    """

    def __init__(self) -> None:
        self.call: dict[str, Any] = {}
        self.tiles: dict[str, list[Any]] = {}


class VisionRecorder:
    """Collects the declared statistics, and nothing else, while pictures are encoded."""

    def __init__(self, adapter: ModelAdapter, needs: frozenset[str], tower: TowerPruning) -> None:
        self.adapter, self.needs, self.tower = adapter, needs, tower
        self.taps: set[str] = set()  # what after_tap is to hear of in every call of the tower
        self._seen = Seen()

    def begin(self) -> None:
        """A batch of pictures is about to be encoded."""
        self._seen.tiles = {name: [] for name in self.needs - {"cls", "text_attention"}}

    @uncompiled
    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._seen.call = {"tower": named_arguments(module, args, kwargs)}

    @uncompiled
    def before_attention(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._seen.call["attention"] = kwargs

    def after_tap(self, name: str, output: Tensor) -> None:
        self._seen.call[name] = output.detach()

    @uncompiled
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> None:
        call, self._seen.call = self._seen.call, {}
        for name in {"pixels", "colors"} & self._seen.tiles.keys():
            self._seen.tiles[name] += self.adapter.tile_pixels(call["tower"])
        if "left_in_tower" in self._seen.tiles:
            self._seen.tiles["left_in_tower"] += self.tower.outcomes()
        if "vision_attention" in self._seen.tiles:
            if not self.taps <= call.keys():
                raise PruningError(
                    f"{type(self.adapter).__name__}.capture_points names modules that the vision tower does not call, "
                    f"so the attention that the strategy needs is unknown. See adapters/README.md."
                )
            self._seen.tiles["vision_attention"] += zip(*self.adapter.tile_heads(call), strict=True)

    def images(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[EncodedImage]:
        """The pictures that were encoded since `begin`."""
        tiles, self._seen.tiles = self._seen.tiles, {}
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
        if name == "left_in_tower":
            (one,) = tiles  # a picture of several tiles is not pruned in the tower
            return one
        if name == "pixels":
            return tuple(tile.detach() for tile in tiles)  # no copy: the picture may be held for long
        if name == "colors":
            return tuple(self.adapter.colors(torch.stack(tiles).detach()))
        queries, keys, *real = (torch.stack(part) for part in zip(*tiles, strict=True))
        return VisionAttention(queries, keys, self.adapter.attention_scale, self.adapter.n_prefix, layout, *real)
