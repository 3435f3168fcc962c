"""Encodes only the patches of the visual tokens left before the vision tower."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tokenprune.engine.tower.row import RowCall
from tokenprune.errors import PruningError, UnsupportedError
from tokenprune.selection import Selection
from tokenprune.serving.vllm.processor.item import PrunedItem
from tokenprune.serving.vllm.towers.from_config import tower_of_config


class PatchDropping:
    """Shortens the input of the layers of a tower that takes the patches of all images in one sequence, or of one image
    after the other. The modules after the layers return a row for every patch or visual token again, with zeros for
    dropped ones.

    The `forward` methods of all these are replaced, because modules that vLLM can compile run no hooks.

    config: the model's. layers: those of its tower. outputs: the modules that get the layers' output, starting with the
    one called last. attention: the layers' attention kernel.

    Raises UnsupportedError for a kernel that receives the lengths of images in another way.
    """

    def __init__(self, config: Any, layers: Iterable[nn.Module], outputs: Iterable[nn.Module], attention: Any) -> None:
        if attention.name == "FLASHINFER":
            raise UnsupportedError(
                "--mm-encoder-attn-backend FLASHINFER cannot be combined with a strategy that prunes before the vision "
                "tower: it is told the lengths of whole images. Leave it out."
            )
        row = tower_of_config(config).row
        assert row is not None
        self._describe, self._config = row.describe, config.vision_config
        self._images: tuple[Int[Tensor, "images 3"], list[Selection]] | None = None
        self._calls: list[RowCall] = []
        self._n_done, self._device = 0, torch.device("cpu")
        for layer in layers:
            names = [*signature(layer.forward).parameters][1:]
            layer.forward = partial(self._layer, layer.forward, names)
        self._last, *others = outputs
        for module in (self._last, *others):
            module.forward = partial(self._output, module, module.forward)

    @contextmanager
    def encoding(self, grids: Int[Tensor, "images 3"], items: Sequence[PrunedItem]) -> Iterator[None]:
        """Inside, the tower encodes what is left of these images or videos. `grids` are in patches. Raises PruningError
        if it did not call its layers for all of them, so that nothing was dropped."""
        kept = [torch.arange(item.n_visual) if item.left is None else torch.tensor(item.left) for item in items]
        self._images = grids.cpu(), [Selection(index, item.n_visual) for index, item in zip(kept, items, strict=True)]
        self._calls, self._n_done = [], 0
        try:
            yield
            if not self._calls or self._n_done < len(self._calls):
                raise PruningError(
                    "vLLM's vision tower did not call the layers that it has, so nothing was pruned before it. Serve "
                    "without pruning, and report it with your vLLM version."
                )
        finally:
            self._images, self._calls = None, []

    def whole(self, states: Float[Tensor, "heads left width"]) -> Float[Tensor, "heads patches width"]:
        """A layer's states for the remaining patches of all images, in the layer's order, with zeros for the others."""
        parts = states.split([len(call.cut.patches) for call in self._calls], -2)
        return torch.cat([call.cut.whole(part) for call, part in zip(self._calls, parts, strict=True)], -2)

    def real(self) -> list[Bool[Tensor, "1 patches"]]:
        """Which patches of each frame, in raster order, are encoded."""
        return [real[None].to(self._device) for call in self._calls for real in call.real()]

    def _begin(self, n_patches: int) -> None:
        """Prepare for the calls of the tower, given how many patches the first one has."""
        assert self._images is not None
        grids, selections = self._images
        each = len(grids) if n_patches == int(grids.prod(-1).sum()) else 1
        parts = [slice(start, start + each) for start in range(0, len(grids), each)]
        rows = [self._describe(grids[part], self._config) for part in parts]
        self._calls = [RowCall(row, selections[part], None) for row, part in zip(rows, parts, strict=True)]

    def _layer(self, forward: Callable[..., Any], names: Sequence[str], x: Tensor, *args: Any, **named: Any) -> Any:
        """x: the patches, possibly with a batch dimension: (1, patches, width) or (patches, 1, width)."""
        if self._images is None:
            return forward(x, *args, **named)
        rows, self._device = x.view(-1, x.shape[-1]), x.device
        if not self._calls:
            self._begin(len(rows))
        call = self._calls[self._n_done]
        if not call.drops:
            return forward(x, *args, **named)
        still = call.advance(rows).view(*(size if size == 1 else -1 for size in x.shape[:-1]), x.shape[-1])
        return forward(still, **call.cut.arguments({**dict(zip(names, args, strict=False)), **named}))

    def _output(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
        made = forward(*args, **named)
        if self._images is None or not self._calls:
            return made
        call = self._calls[self._n_done]
        self._n_done += module is self._last
        return call.cut.whole(made) if call.drops else made
