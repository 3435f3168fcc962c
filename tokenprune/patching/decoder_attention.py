"""Reads the attention of decoder layers during the model's own forward, and leaves that forward unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import find_cache, new_size
from tokenprune.adapters.decoder.attention import text_capture_points
from tokenprune.engine.cache.pruned import n_slots
from tokenprune.engine.patch import dynamo_disabled
from tokenprune.engine.stages.capture import RowReader, attention_reader
from tokenprune.errors import PruningError
from tokenprune.report import ImageReport
from tokenprune.sequence.masks import padding_of, prunable_mask
from tokenprune.sequence.packing import PromptTokens
from tokenprune.tokens.stages import TextAttention


class DecoderReader:
    """Reads the attention of some decoder layers from the last forward that contained an image.

    Raises UnsupportedError for layers without query and key projections of their own.
    """

    def __init__(self, adapter: ModelAdapter, layers: Sequence[int]) -> None:
        self._adapter = adapter
        self._points = {layer: text_capture_points(adapter.layers[layer]) for layer in layers}
        self._hooks: list[RemovableHandle] = []
        self._captured: dict[int, dict[str, Any]] | None = None  # None outside of a forward with an image
        self._n_past = 0
        self._prompt: PromptTokens | None = None
        self._layers: dict[int, RowReader] = {}

    def install(self) -> None:
        for layer, points in self._points.items():
            before, after = partial(self._before_attention, layer), partial(self._after_attention, layer)
            self._hooks.append(points.attention.register_forward_pre_hook(before, with_kwargs=True))
            self._hooks += [
                module.register_forward_hook(partial(self._after_output, layer, name))
                for name, module in points.outputs.items()
            ]
            self._hooks.append(points.attention.register_forward_hook(after))

    def remove(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()
        self.clear()

    def clear(self) -> None:
        """Forget the last forward."""
        self._captured, self._prompt, self._layers = None, None, {}

    def begin(self, kwargs: Mapping[str, Any], visual: Mapping[str, Bool[Tensor, "batch new"]]) -> None:
        """Start a forward of the base model with these arguments, whose `visual` tokens are given by modality.

        Raises PruningError if modules that expose attention were replaced since the reader was made, and
        UnsupportedError if the attention was switched to one that gets no masks from which windows could be read.
        """
        self._adapter.decoder.check_masks()
        if any(text_capture_points(self._adapter.layers[layer]) != points for layer, points in self._points.items()):
            raise PruningError(
                "modules whose attention is read were replaced after probe(). Call probe() again, after "
                "get_peft_model, merge_and_unload and the like."
            )
        cache = find_cache(kwargs)
        n_columns = 0 if cache is None else int(cache.get_seq_length())  # dropped tokens included
        padding = padding_of(prunable_mask(kwargs.get("attention_mask")), n_columns, new_size(kwargs)[1])
        like = next(iter(visual.values()))
        real = torch.ones_like(like) if padding is None else ~padding[:, n_columns:].to(like.device).expand_as(like)
        self._captured, self._layers, self._n_past = {}, {}, n_slots(cache)
        self._prompt = PromptTokens.of(visual, {}, real)

    def end(self) -> None:
        self._captured = None

    @dynamo_disabled
    def _before_attention(self, layer: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._captured is not None:
            self._captured[layer] = {"attention": kwargs}

    @dynamo_disabled
    def _after_output(self, layer: int, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        if self._captured is not None:
            self._captured[layer][name] = output.detach()

    @dynamo_disabled
    def _after_attention(self, layer: int, attention: nn.Module, args: Any, output: Any) -> None:
        if self._captured is not None:
            assert self._prompt is not None
            call = self._captured.pop(layer)
            with torch.no_grad():
                reader = attention_reader(self._adapter.layers[layer], call, self._n_past, self._prompt.real)
            self._layers[layer] = reader

    def attention(self, images: Sequence[ImageReport]) -> list[dict[int, TextAttention]]:
        """The attention of each layer in the rows of the last forward's images, given in reading order."""
        if self._prompt is None:
            return [{} for _ in images]
        any_visual = torch.stack([*self._prompt.visual_cpu.values()]).any(0)
        columns = [row.nonzero()[:, 0] for row in any_visual]
        taken = [0] * len(columns)
        result = []
        for image in images:
            row, start = image.row, taken[image.row]
            taken[row] += image.n_visual
            visual = columns[row][start : taken[row]]
            text = self._prompt.text_after(row, int(visual[-1]))
            result.append({layer: read(row, visual, text) for layer, read in self._layers.items()})
        return result
