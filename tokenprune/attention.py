"""Attention statistics of one vision-encoder layer, from its queries and keys.

The tower itself keeps its fast attention kernel; here only the rows or sums that a strategy asks for are computed,
in float32 and in blocks of query rows, so that a whole map exists for small images only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.layout import Layout

Heads = Literal["mean", "max"]

# Attention weights held at once, over all heads: 64 MiB in float32.
BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True, eq=False)
class VisionAttention:
    """The attention of one encoder layer over one image: A[h, i, j] = softmax_j(scale * q[h, i] . k[h, j]).

    Every tile is a sequence of its own. The first `n_prefix` tokens of each are no patches (a CLS token); they take
    part in the softmax and are left out of what the methods return: one float32 per visual token, carried there from
    the patches as `layout` says. Tokens that are not `real` are padding: they give no attention and get none.
    """

    queries: Float[Tensor, "tiles heads tokens width"]
    keys: Float[Tensor, "tiles heads tokens width"]
    scale: float
    n_prefix: int
    layout: Layout
    real: Bool[Tensor, "tiles tokens"] | None = None

    def received(self, heads: Heads = "mean") -> Float[Tensor, " visual"]:
        """Column sums: the attention that each patch receives from all patches, heads reduced first."""
        n_tiles, _, n_tokens, _ = self.keys.shape
        total = self.keys.new_zeros(n_tiles, n_tokens, dtype=torch.float32)
        for tile in range(n_tiles):
            for rows in self._blocks(self.n_prefix):
                total[tile] += _reduce(self._weights(tile, rows), heads).sum(0)
        return self.layout.carry(total[:, self.n_prefix :])

    def from_cls(self, heads: Heads = "mean") -> Float[Tensor, " visual"]:
        """The CLS row: the attention that the CLS token pays to each patch.

        Raises PruningError for a tower without one. A strategy that calls this declares "cls" in its needs, so that
        `patch` can say so instead.
        """
        if self.n_prefix == 0:
            raise PruningError(
                'this vision tower has no CLS token. Add "cls" to the strategy\'s needs to be told by patch(), '
                "and use received() here."
            )
        rows = [_reduce(self._weights(tile, slice(0, 1)), heads)[0] for tile in range(len(self.keys))]
        return self.layout.carry(torch.stack(rows)[:, self.n_prefix :])

    def carried_by(self, layout: Layout) -> VisionAttention:
        """The same attention, for the visual tokens of another layout over the same tiles."""
        return replace(self, layout=layout)

    @classmethod
    def joined(cls, parts: Sequence[VisionAttention], layout: Layout) -> VisionAttention:
        """The attention over an image whose tiles were looked at apart."""
        queries, keys = torch.cat([part.queries for part in parts]), torch.cat([part.keys for part in parts])
        real = [part.real for part in parts if part.real is not None]
        return replace(parts[0], queries=queries, keys=keys, layout=layout, real=torch.cat(real) if real else None)

    def _weights(self, tile: int, rows: slice) -> Float[Tensor, "heads rows tokens"]:
        logits = self.queries[tile, :, rows].float() @ self.keys[tile].float().transpose(1, 2)
        if self.real is None:
            return (logits * self.scale).softmax(dim=-1)
        logits = logits.masked_fill(~self.real[tile], -torch.inf)
        return (logits * self.scale).softmax(dim=-1) * self.real[tile, rows, None]

    def _blocks(self, start: int) -> Iterator[slice]:
        _, n_heads, n_tokens, _ = self.queries.shape
        step = max(1, BLOCK_ELEMENTS // (n_heads * n_tokens))
        for first in range(start, n_tokens, step):
            yield slice(first, min(first + step, n_tokens))


def _reduce(weights: Float[Tensor, "heads rows tokens"], heads: Heads) -> Float[Tensor, "rows tokens"]:
    return weights.mean(0) if heads == "mean" else weights.amax(0)
