"""Attention statistics of one encoder layer of the vision tower, from its queries and keys.

The tower keeps its fast attention kernel. Only the rows or sums that a strategy needs are computed here, in float32 and
in blocks of query rows, so that a whole attention map exists only for small images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.tokens.layout import Layout

HeadReduction = Literal["mean", "max"]

# Attention weights in memory at once, over all heads: 64 MiB in float32. On a CPU, 1 MiB, which fits its cache, or
# enough rows to make reading the keys worthwhile.
BLOCK_ELEMENTS = 2**24
CACHED_ELEMENTS = 2**18
CACHED_ROWS = 16


def split_heads(
    projection: Float[Tensor, "tiles tokens heads_width"], n_heads: int
) -> Float[Tensor, "tiles heads tokens width"]:
    """Split a query, key or value projection into heads."""
    return projection.unflatten(-1, (n_heads, -1)).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class VisionAttention:
    """The attention of one encoder layer over one image: A[h, i, j] = softmax_j(scale * q[h, i] . k[h, j]).

    Every tile is its own sequence. The first `n_prefix` tokens of each are not patches (a CLS token): they take part in
    the softmax, but the results leave them out. Unless stated otherwise, a result has one float32 per visual token,
    mapped from patches by `layout`. Tokens that are not `real` are padding: they neither pay nor receive attention.

    shares: how much of each patch a visual token reads, where visual tokens are queries that read all patches of their
        tile; the shares of a visual token sum to 1.
    computed: results of `once` by key. Copies for other layouts share them: a budget per tile asks for the tokens of
        one tile after the other.
    """

    queries: Float[Tensor, "tiles heads tokens width"]
    keys: Float[Tensor, "tiles heads tokens width"]
    scale: float
    n_prefix: int
    layout: Layout
    real: Bool[Tensor, "tiles tokens"] | None = None
    shares: Float[Tensor, "tiles visual patches"] | None = None
    computed: dict[object, Tensor] = field(default_factory=dict, repr=False, init=False)

    def once(self, key: object, compute: Callable[[], Tensor]) -> Tensor:
        """Return the result of `compute`, which is called once per key. Nothing may be written into the result."""
        if key not in self.computed:
            self.computed[key] = compute()
        return self.computed[key]

    def to_tokens(self, values: Float[Tensor, "tiles patches"]) -> Float[Tensor, " visual"]:
        """Map one number per patch of every tile to one per visual token, as the model maps the features."""
        if self.shares is not None:
            values = torch.einsum("tvp,tp->tv", self.shares, values)
        return self.layout.to_tokens(values)

    def column_sums(self, heads: HeadReduction = "mean") -> Float[Tensor, "tiles patches"]:
        """Sum the attention that each patch receives from all patches of its tile, after reducing heads. Not mapped to
        visual tokens."""
        return self.once(("column sums", heads), lambda: self._column_sums(heads))

    def _column_sums(self, heads: HeadReduction) -> Float[Tensor, "tiles patches"]:
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
        """Sum the attention, averaged over heads, that each patch receives from the patches `rows` of its tile that are
        `counted`. Not mapped to visual tokens."""
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
        """Return the column sums: the attention that each patch receives from all patches, after reducing heads."""
        return self.to_tokens(self.column_sums(heads))

    def cls_row(self, heads: HeadReduction = "mean") -> Float[Tensor, " visual"]:
        """Return the CLS row: the attention that the CLS token pays to each patch.

        Raises PruningError for a tower without a CLS token. A strategy that calls this declares "cls" in its needs, so
        that `patch` raises UnsupportedError first.
        """
        self._check_cls()
        return self.to_tokens(self.once(("CLS rows", heads), lambda: self._cls_rows(heads)))

    def _cls_rows(self, heads: HeadReduction) -> Float[Tensor, "tiles patches"]:
        rows = [
            reduce_heads(self._weights(tile, cls, self._keys(tile)), heads)[0]
            for tile, cls in enumerate(self.queries[:, :, :1])
        ]
        return torch.stack(rows)[:, self.n_prefix :]

    def cls_logits(self) -> Float[Tensor, "heads visual"]:
        """Return scale * q . k of the CLS token with each patch, per head, before the softmax.

        Linear in the keys: the mean over several visual tokens is the logit of their mean key.

        Raises PruningError for a tower without a CLS token.
        """
        self._check_cls()
        patches = self.keys[:, :, self.n_prefix :]
        cls = self.queries[:, :, :1].float() * self.scale
        logits = [(query @ key.float().transpose(1, 2))[:, 0] for query, key in zip(cls, patches, strict=True)]
        return torch.stack([self.to_tokens(head) for head in torch.stack(logits, 1)])

    def cls_or_mean(self) -> Float[Tensor, " visual"]:
        """Return the CLS row or, without a CLS token, the mean attention that each patch receives from all patches.

        Averaged over heads.
        """
        return self.cls_row() if self.n_prefix else self.received() / self.keys.shape[2]

    def patch_keys(self) -> Float[Tensor, "visual heads width"]:
        """Return the keys of the patches, mapped to visual tokens. The keys of newline tokens are meaningless."""
        patches = self.keys[:, :, self.n_prefix :].float()
        vectors = rearrange(patches, "tile head patch width -> tile patch (head width)")
        carried = torch.vmap(self.to_tokens, in_dims=2, out_dims=1)(vectors)
        return rearrange(carried, "visual (head width) -> visual head width", head=patches.shape[1])

    def with_layout(self, layout: Layout) -> VisionAttention:
        """Return the same attention for the visual tokens of another layout over the same tiles."""
        view = replace(self, layout=layout)
        object.__setattr__(view, "computed", self.computed)
        return view

    def to(self, device: torch.device) -> VisionAttention:
        """Return the same attention on a device."""
        parts = {name: getattr(self, name) for name in ("queries", "keys", "real", "shares")}
        moved = {name: part.to(device) for name, part in parts.items() if part is not None}
        return replace(self, **moved)

    @classmethod
    def concat(cls, parts: Sequence[VisionAttention], layout: Layout) -> VisionAttention:
        """Join the attention of tiles that were encoded separately into that of their image."""
        queries, keys = torch.cat([part.queries for part in parts]), torch.cat([part.keys for part in parts])
        real = [part.real for part in parts if part.real is not None]
        shares = [part.shares for part in parts if part.shares is not None]
        return replace(
            parts[0],
            queries=queries,
            keys=keys,
            layout=layout,
            real=torch.cat(real) if real else None,
            shares=torch.cat(shares) if shares else None,
        )

    def _check_cls(self) -> None:
        if self.n_prefix == 0:
            raise PruningError(
                "this vision tower has no CLS token. Call received() instead, or add 'cls' to the strategy's needs, so "
                "that patch() rejects such models."
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
    """Return how many query rows to compute at once, for `row` attention weights per row over all heads."""
    most = max(1, BLOCK_ELEMENTS // row)
    return most if device.type != "cpu" else min(most, max(CACHED_ROWS, CACHED_ELEMENTS // row))


def reduce_heads(weights: Float[Tensor, "heads rows tokens"], heads: HeadReduction) -> Float[Tensor, "rows tokens"]:
    """Reduce the maps of all heads to one."""
    return weights.mean(0) if heads == "mean" else weights.amax(0)
