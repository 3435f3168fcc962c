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

    def column_sums(
        self, heads: Heads = "mean", rows: Bool[Tensor, "tiles patches"] | None = None
    ) -> Float[Tensor, "tiles patches"]:
        """The attention that each patch receives from all patches of its tile, or from those in `rows`; heads reduced
        first. Not carried onto visual tokens yet."""
        n_tiles, _, n_tokens, _ = self.keys.shape
        total = self.keys.new_zeros(n_tiles, n_tokens, dtype=torch.float32)
        for tile in range(n_tiles):
            asking = torch.arange(n_tokens - self.n_prefix, device=self.keys.device)
            asking = asking if rows is None else asking[rows[tile]]
            for block in (asking + self.n_prefix).split(self._block_length()):
                total[tile] += reduce_heads(self._weights(tile, block), heads).sum(0)
        return total[:, self.n_prefix :]

    def received(self, heads: Heads = "mean") -> Float[Tensor, " visual"]:
        """Column sums: the attention that each patch receives from all patches, heads reduced first."""
        return self.layout.carry(self.column_sums(heads))

    def from_cls(self, heads: Heads = "mean") -> Float[Tensor, " visual"]:
        """The CLS row: the attention that the CLS token pays to each patch.

        Raises PruningError for a tower without one. A strategy that calls this declares "cls" in its needs, so that
        `patch` can say so instead.
        """
        self._check_cls()
        cls = torch.zeros(1, dtype=torch.long, device=self.keys.device)
        rows = [reduce_heads(self._weights(tile, cls), heads)[0] for tile in range(len(self.keys))]
        return self.layout.carry(torch.stack(rows)[:, self.n_prefix :])

    def cls_logits(self) -> Float[Tensor, "heads visual"]:
        """scale * q . k of the CLS token with each patch, of every head, before the softmax. Linear in the keys: the
        mean over several visual tokens is the logit of their mean key.

        Raises PruningError for a tower without a CLS token.
        """
        self._check_cls()
        patches = self.keys[:, :, self.n_prefix :]
        cls = self.queries[:, :, :1].float() * self.scale
        logits = [(query @ key.float().transpose(1, 2))[:, 0] for query, key in zip(cls, patches, strict=True)]
        return torch.stack([self.layout.carry(head) for head in torch.stack(logits, 1)])

    def attended(self) -> Float[Tensor, " visual"]:
        """What the CLS token pays to each patch, or, in a tower without one, what all patches pay it on average. Heads
        are averaged."""
        return self.from_cls() if self.n_prefix else self.received() / self.keys.shape[2]

    def patch_keys(self) -> Float[Tensor, "visual heads width"]:
        """The keys of each patch, carried onto visual tokens. Those of a newline token say nothing."""
        patches = self.keys[:, :, self.n_prefix :].float()
        vectors = rearrange(patches, "tile head patch width -> tile patch (head width)")
        carried = torch.vmap(self.layout.carry, in_dims=2, out_dims=1)(vectors)
        return rearrange(carried, "visual (head width) -> visual head width", head=patches.shape[1])

    def carried_by(self, layout: Layout) -> VisionAttention:
        """The same attention, for the visual tokens of another layout over the same tiles."""
        return replace(self, layout=layout)

    @classmethod
    def joined(cls, parts: Sequence[VisionAttention], layout: Layout) -> VisionAttention:
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

    def _weights(self, tile: int, rows: Int[Tensor, " rows"]) -> Float[Tensor, "heads rows tokens"]:
        logits = self.queries[tile, :, rows].float() @ self.keys[tile].float().transpose(1, 2)
        if self.real is None:
            return (logits * self.scale).softmax(dim=-1)
        logits = logits.masked_fill(~self.real[tile], -torch.inf)
        return (logits * self.scale).softmax(dim=-1) * self.real[tile, rows, None]

    def _block_length(self) -> int:
        _, n_heads, n_tokens, _ = self.queries.shape
        return max(1, BLOCK_ELEMENTS // (n_heads * n_tokens))


def reduce_heads(weights: Float[Tensor, "heads rows tokens"], heads: Heads) -> Float[Tensor, "rows tokens"]:
    """One map from those of all heads."""
    return weights.mean(0) if heads == "mean" else weights.amax(0)
