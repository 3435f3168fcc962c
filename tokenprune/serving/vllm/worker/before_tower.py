"""Encodes only the patches of the visual tokens that are left before the vision tower."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tokenprune.adapters.towers.row import PatchRow
from tokenprune.engine.tower.row import RowCall
from tokenprune.errors import UnsupportedError
from tokenprune.selection import Selection
from tokenprune.serving.vllm.processing import PrunedItem


class PatchDropping:
    """Shortens what the layers of a tower get, which takes the patches of all images in one row; its mergers return a
    row for every visual token again, with zeros for those that were dropped.

    The methods `forward` of its layers and mergers are replaced, because those that vLLM can compile run no hooks.

    row: how transformers' tower of the same kind takes patches. config: the tower's.

    Raises UnsupportedError for a kernel of attention that is told the lengths of images in another way.
    """

    def __init__(self, tower: Any, row: PatchRow, config: Any) -> None:
        if tower.attn_backend.name == "FLASHINFER":
            raise UnsupportedError(
                "--mm-encoder-attn-backend FLASHINFER cannot be combined with a strategy that prunes before the vision "
                "tower: it is told the lengths of whole images. Leave it out."
            )
        self._row, self._config = row, config
        self._call: RowCall | None = None
        for layer in tower.blocks:
            layer.forward = partial(self._layer, layer.forward)
        for merger in mergers(tower):
            merger.forward = partial(self._merger, merger.forward)

    @contextmanager
    def encoding(self, grids: Int[Tensor, "images 3"], items: Sequence[PrunedItem]) -> Iterator[None]:
        """The tower's call within encodes what is left of these images or videos. `grids` are in patches."""
        row = self._row.describe(grids.cpu(), self._config)
        kept = [torch.arange(item.n_visual) if item.left is None else torch.tensor(item.left) for item in items]
        selections = [Selection(one, item.n_visual) for one, item in zip(kept, items, strict=True)]
        self._call = RowCall(row, selections, None)
        try:
            yield
        finally:
            self._call = None

    def whole(self, states: Float[Tensor, "heads left width"]) -> Float[Tensor, "heads patches width"]:
        """What a layer made of the patches that are left, in the order that the row has there, with zeros for the
        others."""
        return states if self._call is None else self._call.cut.whole(states)

    def real(self) -> list[Bool[Tensor, " patches"]] | None:
        """Which patches of each frame, in raster order, are encoded; None outside of `encoding`."""
        return None if self._call is None else self._call.real()

    def _layer(self, forward: Callable[..., Any], x: Float[Tensor, "patches 1 width"], *args: Any, **named: Any) -> Any:
        call = self._call
        if call is None or not call.drops:
            return forward(x, *args, **named)
        assert not args, "vLLM passes all arguments but the first by name"
        left = call.advance(x.transpose(0, 1)).transpose(0, 1)
        return forward(left, **call.cut.arguments(named))

    def _merger(self, forward: Callable[..., Any], x: Tensor, *args: Any, **named: Any) -> Any:
        merged = forward(x, *args, **named)
        call = self._call
        return merged if call is None or not call.drops else call.cut.whole(merged)


def mergers(tower: Any) -> list[nn.Module]:
    """What makes one visual token of several patches: of the last layer's, and of those of earlier ones whose features
    the decoder gets too (DeepStack)."""
    return [tower.merger, *getattr(tower, "deepstack_merger_list", ())]
