"""Encodes only the patches of the visual tokens that are left before the vision tower."""

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
from tokenprune.serving.vllm.processing import PrunedItem
from tokenprune.serving.vllm.towers import tower_of_config


class PatchDropping:
    """Shortens what the layers of a tower get, which takes the patches of images in a row. The modules after them
    return a row for every patch or visual token again, with zeros for those that were dropped.

    The methods `forward` of all these are replaced, because those that vLLM can compile run no hooks.

    config: the model's. layers: those of its tower. outputs: the modules that get what the layers have made.
    attention: the kernel that they run. one_by_one: whether the tower is called for each image.

    Raises UnsupportedError for a kernel that is told the lengths of images in another way.
    """

    def __init__(
        self,
        config: Any,
        layers: Iterable[nn.Module],
        outputs: Iterable[nn.Module],
        attention: Any,
        one_by_one: bool = False,
    ) -> None:
        if attention.name == "FLASHINFER":
            raise UnsupportedError(
                "--mm-encoder-attn-backend FLASHINFER cannot be combined with a strategy that prunes before the vision "
                "tower: it is told the lengths of whole images. Leave it out."
            )
        row = tower_of_config(config).row
        assert row is not None
        self._describe, self._config, self._one_by_one = row.describe, config.vision_config, one_by_one
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
        """The tower encodes what is left of these images or videos. `grids` are in patches. Raises PruningError if it
        has not called its layers, so that nothing was dropped."""
        kept = [torch.arange(item.n_visual) if item.left is None else torch.tensor(item.left) for item in items]
        selections = [Selection(one, item.n_visual) for one, item in zip(kept, items, strict=True)]
        each = 1 if self._one_by_one else len(items)
        parts = [slice(start, start + each) for start in range(0, len(items), each)]
        rows = [self._describe(grids[part].cpu(), self._config) for part in parts]
        self._calls = [RowCall(row, selections[part], None) for row, part in zip(rows, parts, strict=True)]
        self._n_done = 0
        try:
            yield
            if any(call.following is not None for call in self._calls):
                raise PruningError(
                    "vLLM's vision tower did not call the layers that it has, so nothing was pruned before it. Serve "
                    "without pruning, and report it with your vLLM version."
                )
        finally:
            self._calls = []

    def whole(self, states: Float[Tensor, "heads left width"]) -> Float[Tensor, "heads patches width"]:
        """What a layer made of the patches that are left of all images, in the order that they have there, with zeros
        for the others."""
        parts = states.split([len(call.cut.patches) for call in self._calls], -2)
        return torch.cat([call.cut.whole(part) for call, part in zip(self._calls, parts, strict=True)], -2)

    def real(self) -> list[Bool[Tensor, "1 patches"]]:
        """Which patches of each frame, in raster order, are encoded."""
        return [real[None].to(self._device) for call in self._calls for real in call.real()]

    @property
    def _call(self) -> RowCall | None:
        """The call of the tower that runs, if it drops anything."""
        call = self._calls[self._n_done] if self._n_done < len(self._calls) else None
        return call if call is not None and call.drops else None

    def _layer(self, forward: Callable[..., Any], names: Sequence[str], x: Tensor, *args: Any, **named: Any) -> Any:
        """x: the patches, also in a batch of one sequence, (1, patches, width), or of one each, (patches, 1, width)."""
        self._device = x.device
        if (call := self._call) is None:
            return forward(x, *args, **named)
        rows = x.view(-1, x.shape[-1])
        left = call.advance(rows).view(*(size if size == 1 else -1 for size in x.shape[:-1]), x.shape[-1])
        return forward(left, **call.cut.arguments({**dict(zip(names, args, strict=False)), **named}))

    def _output(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
        made, call = forward(*args, **named), self._call
        if module is self._last and self._one_by_one:
            self._n_done += 1
        return made if call is None else call.cut.whole(made)
