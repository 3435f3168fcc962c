"""Which visual tokens are merged into which kept ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.selection.precision import without_autocast


def describe(value: object) -> str:
    """Shape and dtype of a tensor, or the type of anything else, for errors."""
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


# Elements of merged features in memory at once: 256 MiB in float32.
PAIR_ELEMENTS = 2**26
# Pairs are summed by a matrix product if at least 1/DENSE of all pairs of target and source occur.
DENSE = 32


@dataclass(frozen=True, eq=False)
class Merge:
    """Which visual tokens are folded into which kept tokens, and with what weight: new[t] = sum of weight * old[s].

    targets: places within `kept` of the tokens whose features are replaced; others keep theirs, bit for bit.
    sources: indices of visual tokens, kept or dropped. A target's own old features count only if it is a source too.
    weights: multiplied as they are; a strategy that wants a mean gives weights that add up to 1.
    """

    targets: Int[Tensor, " pairs"]
    sources: Int[Tensor, " pairs"]
    weights: Float[Tensor, " pairs"]

    def __post_init__(self) -> None:
        """Raises PruningError unless all three are tensors with one entry per pair, and the first two hold indices."""
        parts = self.targets, self.sources, self.weights
        tensors = all(isinstance(part, Tensor) and part.ndim == 1 for part in parts)
        if not tensors or len({*map(len, parts)}) > 1 or {self.targets.dtype, self.sources.dtype} != {torch.long}:
            raise PruningError(
                f"a Merge has targets {describe(self.targets)}, sources {describe(self.sources)} and weights "
                f"{describe(self.weights)}; each must be a one-axis tensor with one entry for each pair of target and "
                f"source, the first two LongTensors."
            )

    @classmethod
    def mean(
        cls,
        targets: Int[Tensor, " pairs"],
        sources: Int[Tensor, " pairs"],
        importance: Float[Tensor, " pairs"],
        n_kept: int,
    ) -> Merge:
        """The importance-weighted mean of every target's sources, among `n_kept` kept tokens.

        No importance may be negative, nor all of a target's be 0: a Selection raises PruningError for such weights, as
        it does for impossible targets.
        """
        cls(targets, sources, importance)  # checks them
        # Nothing is read from a GPU here, so impossible targets are masked: indexing with them would end the process.
        importance = importance.where(importance >= 0, torch.nan)
        within = targets.where((targets >= 0) & (targets < n_kept), 0)
        totals = importance.new_zeros(n_kept).index_add(0, within, importance)
        return cls(targets, sources, importance / totals[within])

    def fits(self, n_visual: int, n_kept: int) -> Bool[Tensor, ""]:
        """Whether all sources are among `n_visual` tokens, all targets among `n_kept`, and all weights finite. Does not
        wait for a GPU."""
        sources, targets = self.sources, self.targets
        inside = (sources >= 0) & (sources < n_visual) & (targets >= 0) & (targets < n_kept)
        return (inside & self.weights.isfinite()).all()

    @classmethod
    def concat(cls, parts: Sequence[Merge]) -> Merge:
        """Join the merges within several parts of an image, whose indices already count in the whole image."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("targets", "sources", "weights")))

    def in_image(self, index: Int[Tensor, " part"], places: Int[Tensor, " kept"]) -> Merge:
        """Convert this merge within a part of an image to one within the image, where the part's visual tokens are
        `index`, and its kept tokens are at `places` among all kept ones."""
        return Merge(places[self.targets], index[self.sources], self.weights)

    def to(self, device: torch.device) -> Merge:
        """The same merge on a device."""
        return Merge(self.targets.to(device), self.sources.to(device), self.weights.to(device))

    def detach(self) -> Merge:
        """The same merge without the graph of its weights."""
        return Merge(self.targets, self.sources, self.weights.detach())

    @classmethod
    def none(cls, device: torch.device) -> Merge:
        """Nothing merged into anything."""
        nothing = torch.empty(0, dtype=torch.long, device=device)
        return cls(nothing, nothing, nothing.float())

    def then(self, second: Merge, before: Int[Tensor, " before"], kept: Int[Tensor, " kept"]) -> Merge:
        """Combine this merge, into the tokens `before`, with a `second` one of these into `kept` of them."""
        targets, sources, weights = self._pairs(before)
        to, through, shares = second._pairs(kept)
        counts = targets.bincount(minlength=len(before))
        of_pair = counts[through]  # a pair of the second merge becomes one pair per token its source is merged from
        pair = torch.arange(len(to), device=to.device).repeat_interleave(of_pair)
        first = (counts.cumsum(0) - counts)[through] - (of_pair.cumsum(0) - of_pair)
        at = torch.arange(len(pair), device=to.device) + first[pair]
        changed = torch.isin(kept, self.targets).index_fill(0, second.targets, True)[to[pair]]
        return Merge(to[pair][changed], sources[at][changed], (shares[pair] * weights[at])[changed])

    def _pairs(self, kept: Int[Tensor, " kept"]) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, sources and weights by ascending target; a kept token that is no target is merged from itself."""
        same = torch.ones_like(kept, dtype=torch.bool).index_fill(0, self.targets, False).nonzero()[:, 0]
        targets, sources = torch.cat([self.targets, same]), torch.cat([self.sources, kept[same]])
        weights = torch.cat([self.weights.float(), torch.ones_like(same, dtype=torch.float32)])
        order = targets.argsort(stable=True)
        return targets[order], sources[order], weights[order]

    def apply(self, features: Float[Tensor, "visual width"], kept: Int[Tensor, " kept"]) -> Float[Tensor, "kept width"]:
        """The features of the kept tokens, summed in float32. Sums beyond float16's range, which weights that add up to
        more than 1 may have, become its largest number if the features have that dtype."""
        if DENSE * len(self.targets) < len(kept) * len(features):
            return self._added_up(features, kept)
        changed = torch.zeros_like(kept, dtype=torch.bool).index_fill(0, self.targets, True)
        return torch.where(
            changed[:, None], _rounded(self._product(features, len(kept)), features.dtype), features[kept]
        )

    def _added_up(
        self, features: Float[Tensor, "visual width"], kept: Int[Tensor, " kept"]
    ) -> Float[Tensor, "kept width"]:
        """The kept features, for few pairs, which are summed in blocks. The other features keep their bits, because
        converting them to float32 and back is exact."""
        result = features[kept].to(torch.promote_types(features.dtype, torch.float32)).index_fill_(0, self.targets, 0)
        length = max(1, PAIR_ELEMENTS // features.shape[1])
        pairs = zip(*(part.split(length) for part in (self.targets, self.sources, self.weights)), strict=True)
        for targets, sources, weights in pairs:
            result.index_add_(0, targets, features[sources].to(result) * weights.to(result)[:, None])
        return _rounded(result, features.dtype)

    def _product(self, features: Float[Tensor, "visual width"], n_kept: int) -> Float[Tensor, "kept width"]:
        """The sums for many pairs, as a matrix product, which reads every feature only once."""
        pairs, finite = (self.targets, self.sources), features.isfinite()
        nothing = torch.zeros(n_kept, len(features), dtype=torch.float32, device=features.device)
        weights = nothing.index_put(pairs, self.weights.float(), accumulate=True)
        with without_autocast(features.device):
            sums = weights @ features.float().where(finite, 0)
            if features.device.type == "cpu" and finite.all():  # elsewhere, this would wait for the device
                return sums
            # An infinity or NaN times 0 is NaN, in all targets: those that a target is merged from are counted instead.
            n_others = nothing.index_put(pairs, torch.ones_like(nothing[0, 0])) @ (~finite).float()
            signs = features.isposinf().float() - features.isneginf().float()
            infinite = weights.detach().sign() @ signs
        return sums.where(n_others == 0, (infinite * torch.inf).where(infinite.abs() == n_others, torch.nan))


def _rounded(sums: Float[Tensor, "kept width"], dtype: torch.dtype) -> Float[Tensor, "kept width"]:
    if dtype != torch.float16:  # others have float32's range
        return sums.to(dtype)
    most = torch.finfo(dtype).max
    return sums.where(sums.isinf(), sums.clamp(-most, most)).to(dtype)
