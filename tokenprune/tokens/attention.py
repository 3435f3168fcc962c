"""Attention statistics of one vision-encoder layer, from its queries and keys.

The tower itself keeps its fast attention kernel; here only the rows or sums that a strategy asks for are computed,
in float32 and in blocks of query rows, so that a whole map exists for small images only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.tokens.layout import Layout

HeadReduction = Literal["mean", "max"]

# Attention weights held at once, over all heads: 64 MiB in float32; on a CPU 1 MiB, which its cache holds, or as many
# rows as make it worth reading the keys.
BLOCK_ELEMENTS = 2**24
CACHED_ELEMENTS = 2**18
CACHED_ROWS = 16


def split_heads(
    projection: Float[Tensor, "tiles tokens heads_width"], n_heads: int
) -> Float[Tensor, "tiles heads tokens width"]:
    """A query, key or value projection, by heads."""
    return projection.unflatten(-1, (n_heads, -1)).transpose(1, 2)


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

    def column_sums(self, heads: HeadReduction = "mean") -> Float[Tensor, "tiles patches"]:
        """The attention that each patch receives from all patches of its tile; heads reduced first. Not carried onto
        visual tokens yet."""
        n_tiles, n_heads, n_tokens, _ = self.keys.shape
        total = self.keys.new_zeros(n_tiles, n_tokens, dtype=torch.float32)
        length = block_length(n_heads * n_tokens, self.keys.device)
        for tile, queries in enumerate(self.queries[:, :, self.n_prefix :]):
            keys = self._keys(tile)
            for start in range(0, queries.shape[1], length):
                weights = reduce_heads(self._weights(tile, queries[:, start : start + length], keys), heads)
                if self.real is not None:
                    weights = weights * self.real[tile, self.n_prefix :][start : start + length, None]
                total[tile] += weights.sum(0)
        return total[:, self.n_prefix :]

    def received_from(
        self, rows: Int[Tensor, "tiles rows"], counted: Bool[Tensor, "tiles rows"]
    ) -> Float[Tensor, "tiles patches"]:
        """The attention that each patch receives from the patches `rows` of its tile, as far as they are `counted`,
        averaged over heads. Not mapped to visual tokens yet."""
        n_tiles, n_heads, n_tokens, _ = self.keys.shape
        total = self.keys.new_zeros(n_tiles, n_tokens, dtype=torch.float32)
        length = block_length(n_heads * n_tokens, self.keys.device)
        for tile, (queries, weight) in enumerate(zip(rows + self.n_prefix, counted, strict=True)):
            keys = self._keys(tile)
            for block, share in zip(queries.split(length), weight.split(length), strict=True):
                weights = self._weights(tile, self.queries[tile, :, block], keys).mean(0)
                total[tile] += (weights * share[:, None]).sum(0)
        return total[:, self.n_prefix :]

    def received(self, heads: HeadReduction = "mean") -> Float[Tensor, " visual"]:
        """Column sums: the attention that each patch receives from all patches, heads reduced first."""
        return self.layout.to_tokens(self.column_sums(heads))

    def cls_row(self, heads: HeadReduction = "mean") -> Float[Tensor, " visual"]:
        """The CLS row: the attention that the CLS token pays to each patch.

        Raises PruningError for a tower without one. A strategy that calls this declares "cls" in its needs, so that
        `patch` can say so instead.
        """
        self._check_cls()
        rows = [
            reduce_heads(self._weights(tile, cls, self._keys(tile)), heads)[0]
            for tile, cls in enumerate(self.queries[:, :, :1])
        ]
        return self.layout.to_tokens(torch.stack(rows)[:, self.n_prefix :])

    def cls_logits(self) -> Float[Tensor, "heads visual"]:
        """scale * q . k of the CLS token with each patch, of every head, before the softmax. Linear in the keys: the
        mean over several visual tokens is the logit of their mean key.

        Raises PruningError for a tower without a CLS token.
        """
        self._check_cls()
        patches = self.keys[:, :, self.n_prefix :]
        cls = self.queries[:, :, :1].float() * self.scale
        logits = [(query @ key.float().transpose(1, 2))[:, 0] for query, key in zip(cls, patches, strict=True)]
        return torch.stack([self.layout.to_tokens(head) for head in torch.stack(logits, 1)])

    def cls_or_mean(self) -> Float[Tensor, " visual"]:
        """The CLS row or, in a tower without a CLS token, the mean attention that each patch receives from all patches.
        Heads are averaged."""
        return self.cls_row() if self.n_prefix else self.received() / self.keys.shape[2]

    def patch_keys(self) -> Float[Tensor, "visual heads width"]:
        """The keys of each patch, carried onto visual tokens. Those of a newline token say nothing."""
        patches = self.keys[:, :, self.n_prefix :].float()
        vectors = rearrange(patches, "tile head patch width -> tile patch (head width)")
        carried = torch.vmap(self.layout.to_tokens, in_dims=2, out_dims=1)(vectors)
        return rearrange(carried, "visual (head width) -> visual head width", head=patches.shape[1])

    def with_layout(self, layout: Layout) -> VisionAttention:
        """The same attention, for the visual tokens of another layout over the same tiles."""
        return replace(self, layout=layout)

    @classmethod
    def concat(cls, parts: Sequence[VisionAttention], layout: Layout) -> VisionAttention:
        """The attention over an image whose tiles were looked at apart."""
        queries, keys = torch.cat([part.queries for part in parts]), torch.cat([part.keys for part in parts])
        real = [part.real for part in parts if part.real is not None]
        return replace(parts[0], queries=queries, keys=keys, layout=layout, real=torch.cat(real) if real else None)

    def _check_cls(self) -> None:
        if self.n_prefix == 0:
            raise PruningError(
                'this vision tower has no CLS token. Add "cls" to the strategy\'s needs to be told by patch(), '
                "and use received() here."
            )

    def _weights(
        self, tile: int, queries: Float[Tensor, "heads rows width"], keys: Float[Tensor, "heads width tokens"]
    ) -> Float[Tensor, "heads rows tokens"]:
        logits = queries.float() * self.scale @ keys
        if self.real is not None:
            logits = logits.masked_fill_(~self.real[tile], -torch.inf)
        return logits.softmax(dim=-1)

    def _keys(self, tile: int) -> Float[Tensor, "heads width tokens"]:
        return self.keys[tile].float().transpose(1, 2)


def block_length(row: int, device: torch.device) -> int:
    """How many rows of so many attention weights, over all heads, are computed at once."""
    most = max(1, BLOCK_ELEMENTS // row)
    return most if device.type != "cpu" else min(most, max(CACHED_ROWS, CACHED_ELEMENTS // row))


def reduce_heads(weights: Float[Tensor, "heads rows tokens"], heads: HeadReduction) -> Float[Tensor, "rows tokens"]:
    """One map from those of all heads."""
    return weights.mean(0) if heads == "mean" else weights.amax(0)
