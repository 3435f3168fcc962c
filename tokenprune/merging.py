"""Folding dropped visual tokens into kept ones."""

from __future__ import annotations

from dataclasses import dataclass

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
        cls, targets: Int[Tensor, " pairs"], sources: Int[Tensor, " pairs"], importance: Float[Tensor, " pairs"]
    ) -> Merge:
        """The importance-weighted mean of every target's sources. Importances must be positive."""
        totals = importance.new_zeros(int(targets.max()) + 1 if len(targets) else 0).index_add(0, targets, importance)
        return cls(targets, sources, importance / totals[targets])

    def apply(self, features: Float[Tensor, "visual width"], kept: Int[Tensor, " kept"]) -> Float[Tensor, "kept width"]:
        """The features of the kept tokens, summed in float32."""
        result = features[kept]
        parts = features[self.sources].float() * self.weights.float()[:, None]
        sums = parts.new_zeros(result.shape).index_add(0, self.targets, parts)
        result[self.targets] = sums[self.targets].to(result.dtype)
        return result
