"""Queries and keys of one layer of a vision tower, taken where vLLM's attention gets them."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_gather

from tokenprune.errors import PruningError


class AttentionCapture:
    """Holds the queries and keys of the calls of one `MMEncoderAttention` since the last `clear`.

    Each tensor parallel rank computes some of the heads; what is returned holds all of them.
    """

    def __init__(self, attention: Any) -> None:
        self.scale: float = attention.scale
        self._n_heads, self._width = attention.num_heads, attention.head_size
        self._calls: list[tuple[Tensor, Tensor]] = []
        assert isinstance(attention, nn.Module)
        attention.register_forward_pre_hook(self._before, with_kwargs=True)

    def clear(self) -> None:
        """Forget all calls."""
        self._calls = []

    def heads(self) -> tuple[Float[Tensor, "tiles heads tokens width"], Float[Tensor, "tiles heads tokens width"]]:
        """The queries and the keys of all calls, whose tiles have equally many tokens. Raises PruningError if there was
        no call."""
        if not self._calls:
            raise PruningError("the vision tower did not call the attention layer that the strategy reads.")
        queries, keys = (torch.cat([self._split(call[part]) for call in self._calls]) for part in (0, 1))
        return queries, keys

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {**dict(zip(("query", "key"), args, strict=False)), **kwargs}
        self._calls.append((named["query"].detach(), named["key"].detach()))

    def _split(self, states: Tensor) -> Float[Tensor, "tiles heads tokens width"]:
        """(tiles, tokens, heads * width) or (tiles, tokens, heads, width) by head, with those of all ranks."""
        by_head = states.unflatten(-1, (self._n_heads, self._width)) if states.ndim == 3 else states
        by_head = by_head.transpose(1, 2)
        if get_tensor_model_parallel_world_size() > 1:
            by_head = tensor_model_parallel_all_gather(by_head.contiguous(), dim=1)
        return by_head
