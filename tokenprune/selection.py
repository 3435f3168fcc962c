"""Folding dropped visual tokens into kept ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Merge:
    """Which visual tokens are folded into which kept tokens, and with what weight: new[t] = sum of weight * old[s].

    targets: places within `kept`, of tokens whose features are replaced; others keep theirs, bit for bit.
    sources: indices of visual tokens, kept or dropped. A target's own old features count only if it is a source too.
    weights: as they are multiplied; a strategy that wants a mean gives weights that add up to 1.
    """

    targets: Int[Tensor, " pairs"]
    sources: Int[Tensor, " pairs"]
    weights: Float[Tensor, " pairs"]

    @classmethod
    def mean(
        cls,
        targets: Int[Tensor, " pairs"],
        sources: Int[Tensor, " pairs"],
        importance: Float[Tensor, " pairs"],
        n_kept: int,
    ) -> Merge:
        """The importance-weighted mean of every target's sources, among `n_kept` kept tokens. Importances must be
        positive."""
        totals = importance.new_zeros(n_kept).index_add(0, targets, importance)
        return cls(targets, sources, importance / totals[targets])

    @classmethod
    def joined(cls, parts: Sequence[Merge]) -> Merge:
        """Merges within several parts of one image, each seen as one of the whole."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("targets", "sources", "weights")))

    def of_whole(self, index: Int[Tensor, " part"], places: Int[Tensor, " kept"]) -> Merge:
        """A merge within a part of an image as one of the whole, where the part's visual tokens are `index` and its
        kept ones are at `places` within all kept ones."""
        return Merge(places[self.targets], index[self.sources], self.weights)

    def apply(self, features: Float[Tensor, "visual width"], kept: Int[Tensor, " kept"]) -> Float[Tensor, "kept width"]:
        """The features of the kept tokens, summed in float32."""
        result = features[kept]
        parts = features[self.sources].float() * self.weights.float()[:, None]
        sums = parts.new_zeros(result.shape).index_add(0, self.targets, parts)
        result[self.targets] = sums[self.targets].to(result.dtype)
        return result
