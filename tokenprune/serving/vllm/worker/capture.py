"""Queries and keys of one layer of a vision tower inside vLLM, and what its projector gets."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear
from vllm.distributed import tensor_model_parallel_all_gather

from tokenprune.adapters.families.deepseek_ocr2 import heads_of
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.resampler import reading_shares, with_reads
from tokenprune.adapters.towers.tower import projections
from tokenprune.errors import PruningError, UnsupportedError
from tokenprune.serving.vllm.worker.ranks import of_all_images
from tokenprune.tokens.attention import split_heads


class Capture:
    """Holds the queries and keys of one attention layer's calls since the last `clear`.

    scale: the factor of q . k.
    n_local: how many heads this tensor parallel rank computes, of the tower's `n_heads`.
    width: the width of a head.
    apart: whether ranks encode different images.
    """

    apart = False

    def __init__(self, scale: float, n_local: int, n_heads: int, width: int) -> None:
        self.scale = scale
        self._n_local, self._width = n_local, width
        self._split_over_ranks = n_local < n_heads
        self._calls: list[tuple[Tensor, Tensor]] = []

    def clear(self) -> None:
        """Forget all calls."""
        self._calls = []

    def heads(self) -> tuple[Float[Tensor, "tiles heads tokens width"], Float[Tensor, "tiles heads tokens width"]]:
        """The queries and keys of all calls, whose tiles have equally many tokens. Raises PruningError if there was
        none."""
        return self._joined(0)

    def row(
        self, sizes: Sequence[int], features: Tensor
    ) -> tuple[Float[Tensor, "heads patches width"], Float[Tensor, "heads patches width"]]:
        """The same for a tower that gets the patches of all images in one sequence, or of each image by itself.

        sizes: how many patches each image has. features: an image's features, for the dtype and device, as a rank
            without images has no states.
        """
        if not self.apart:
            queries, keys = self._joined(2)
            return queries[0], keys[0]
        none = features.new_empty(1, self._n_local, 0, self._width)
        queries, keys = self._joined(2) if self._calls else (none, none)
        return of_all_images(queries[0].to(features), sizes), of_all_images(keys[0].to(features), sizes)

    def by_tile(
        self,
    ) -> list[tuple[Float[Tensor, "heads patches width"], Float[Tensor, "heads patches width"]]]:
        """The same for each tile, for a tower whose calls may have tiles of different lengths."""
        return [
            (queries, keys)
            for call in self._calls
            for queries, keys in zip(self._split(call[0]), self._split(call[1]), strict=True)
        ]

    def _joined(self, dim: int) -> tuple[Tensor, Tensor]:
        if not self._calls:
            raise PruningError(
                "vLLM's vision tower did not call the attention layer that the strategy reads. Use a strategy that "
                "reads no vision attention, such as DivPrune, and report it with your vLLM version."
            )
        queries, keys = (torch.cat([self._split(call[part]) for call in self._calls], dim) for part in (0, 1))
        return queries, keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1)  # queries may share keys

    def _hold(self, queries: Tensor, keys: Tensor) -> None:
        self._calls.append((queries.detach(), keys.detach()))

    def _split(self, states: Tensor) -> Float[Tensor, "tiles heads tokens width"]:
        """Split (tiles, tokens, heads * width) or (tiles, tokens, heads, width) by head, joining all ranks' heads."""
        by_head = states.unflatten(-1, (-1, self._width)) if states.ndim == 3 else states
        by_head = by_head.transpose(1, 2)
        if self._split_over_ranks:
            by_head = tensor_model_parallel_all_gather(by_head.contiguous(), dim=1)
        return by_head


class ProjectorCapture:
    """Holds what a projector that maps every token by itself has got since the last `clear`, whole on every rank."""

    def __init__(self, projector: nn.Module) -> None:
        self._calls: list[Tensor] = []
        projector.register_forward_pre_hook(self._note)

    def clear(self) -> None:
        self._calls = []

    def tiles(self, count: int) -> Float[Tensor, "tiles patches width"]:
        """The same by tile, of which there are `count`, with equally many patches."""
        return torch.cat([call.flatten(0, -2) for call in self._calls]).unflatten(0, (count, -1))

    def _note(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._calls.append(args[0].detach())


class AttentionCapture(Capture):
    """The capture for a vision tower of vLLM's own, at the input of its `MMEncoderAttention`."""

    def __init__(self, attention: Any, n_heads: int) -> None:
        super().__init__(attention.scale, attention.num_heads, n_heads, attention.head_size)
        attention.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {**dict(zip(("query", "key"), args, strict=False)), **kwargs}
        self._hold(named["query"], named["key"])


class FusedCapture(Capture):
    """The capture for a transformers tower in which vLLM has fused the projections of queries, keys and values.

    Raises UnsupportedError for a layer in which it has not.
    """

    def __init__(self, layer: nn.Module, scale: float) -> None:
        fused: Any = next((module.qkv_proj for module in layer.modules() if hasattr(module, "qkv_proj")), None)
        if fused is None:
            raise UnsupportedError(
                f"vLLM's Transformers backend keeps the projections of {type(layer).__name__} apart, and tokenprune "
                f"reads fused ones. Use a strategy that reads no vision attention, such as DivPrune."
            )
        super().__init__(scale, fused.num_heads, fused.total_num_heads, fused.head_size)
        fused.register_forward_hook(self._after)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        self._hold(*states.split(self._n_local * self._width, -1)[:2])


class ResamplerCapture(FusedCapture):
    """The same for a tower before a resampler, whose `attention` is torch's, whole on every rank: its queries read all
    patches of a tile."""

    def __init__(self, layer: nn.Module, scale: float, attention: nn.MultiheadAttention) -> None:
        super().__init__(layer, scale)
        self._attention = attention
        self._reads: list[tuple[Tensor, Tensor]] = []
        attention.register_forward_pre_hook(self._note)

    def clear(self) -> None:
        super().clear()
        self._reads = []

    def shares(
        self, sizes: Sequence[int], real: Iterable[Bool[Tensor, " patches"] | None]
    ) -> list[Float[Tensor, "visual patches"]]:
        """How much of each patch the visual tokens of every tile read, given how many patches each has, and which of
        them are real."""
        weights, biases = (
            part.detach().chunk(3) for part in (self._attention.in_proj_weight, self._attention.in_proj_bias)
        )
        shares: list[Tensor] = []
        masks = iter(real)
        for states in self._reads:
            parts = [linear(*part) for part in zip(states, weights, biases, strict=False)]
            parts = parts if self._attention.batch_first else [part.transpose(0, 1) for part in parts]
            reading, read = (split_heads(part, self._attention.num_heads) for part in parts)
            for own, other in zip(reading, read, strict=True):
                patches = other[:, : sizes[len(shares)]]
                shares.append(reading_shares(own, patches, self._attention.head_dim**-0.5, next(masks)))
        return shares

    def _note(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._reads.append((args[0].detach(), args[1].detach()))


class SeparateCapture(Capture):
    """The capture for an attention module of transformers whose projections vLLM keeps apart, whole on every rank."""

    def __init__(self, attention: Any, n_heads: int) -> None:
        super().__init__(attention.scaling, n_heads, n_heads, attention.head_dim)
        self._queries: Tensor | None = None
        attention.q_proj.register_forward_hook(self._note)
        attention.k_proj.register_forward_hook(self._after)

    def _note(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._queries = output

    def _after(self, module: nn.Module, args: Any, output: Tensor) -> None:
        assert self._queries is not None
        self._hold(self._queries, output)
        self._queries = None


class TileCapture(Capture):
    """The capture for transformers' own tower, whole on every rank; `tower` says how to read it.

    tiles: the queries, (heads, patches, width), the keys and which patches are real, of every tile since the last
        `clear`, in the order in which the tower got them.
    """

    def __init__(self, tower: Tower, module: Any, layer: nn.Module) -> None:
        config = module.config
        super().__init__(tower.scale(module), config.num_attention_heads, config.num_attention_heads, config.head_dim)
        self.tiles: list[tuple[Tensor, ...]] = []
        self._tower, self._config = tower, config
        self._call: dict[str, Any] = {}
        points = tower.capture_points(layer)
        points.attention.register_forward_pre_hook(self._before, with_kwargs=True)
        for name, output in points.outputs.items():
            output.register_forward_hook(partial(self._note, name))
        points.attention.register_forward_hook(self._after)

    def clear(self) -> None:
        self.tiles = []

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._call = {"attention": kwargs, "tower": {"pixel_position_ids": kwargs["position_ids"]}}

    def _note(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        self._call[name] = output.detach()

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        call, self._call = self._call, {}
        assert self._tower.heads is not None
        self.tiles += zip(*self._tower.heads(call, self._config), strict=True)


class ReadingCapture(Capture):
    """The capture for the second encoder of DeepSeek-OCR 2, whose queries read the patches. It is transformers' Qwen2,
    whole on every rank.

    tiles: the queries and keys of the patches of every tile since the last `clear`, which patches are real, and what
        the encoder's queries read, in the order in which it got the tiles.
    """

    def __init__(self, encoder: Any, layer: int) -> None:
        attention, last = encoder.layers[layer].self_attn, encoder.layers[-1].self_attn
        n_heads = encoder.config.num_attention_heads
        super().__init__(attention.scaling, n_heads, n_heads, attention.head_dim)
        self.tiles: list[tuple[Tensor, ...]] = []
        self._n_groups = n_heads // encoder.config.num_key_value_heads
        self._call: dict[str, Any] = {}
        for name, output in with_reads(projections(attention), last).outputs.items():
            output.register_forward_hook(partial(self._note, name))
        attention.register_forward_pre_hook(self._before, with_kwargs=True)
        encoder.register_forward_hook(self._after)

    def clear(self) -> None:
        self.tiles = []

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._call["attention"] = kwargs

    def _note(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        self._call[name] = output.detach()

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        call, self._call = self._call, {}
        n_patches = call["queries"].shape[1] // 2  # one query for each
        self.tiles += zip(*heads_of(call, n_patches, self._n_groups), strict=True)
