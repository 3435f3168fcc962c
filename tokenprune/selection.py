"""The outcome for one image: which visual tokens are kept, what is merged into them, and how many there may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from itertools import accumulate, pairwise
from numbers import Integral, Real

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.errors import PruningError, SettingError

# Elements of merged features in memory at once: 256 MiB in float32.
PAIR_ELEMENTS = 2**26


@dataclass(frozen=True, eq=False)
class Selection:
    """The outcome for one image: `kept` indices, ascending and unique, the importance scores if there are any, what is
    merged into kept tokens, if anything is, and what each of several strategies has left, if there were several.

    Raises PruningError for anything else, so code that holds a Selection need not check it again.
    """

    kept: Int[Tensor, " kept"]
    n_visual: int
    scores: Float[Tensor, " visual"] | None = None
    merged: Merge | None = None
    steps: tuple[StepReport, ...] = ()
    trusted: InitVar[bool] = False  # kept is right by construction, so no GPU has to be waited for to check it

    def __post_init__(self, trusted: bool) -> None:
        kept = self.kept
        if trusted and self.scores is None:
            return
        if kept.ndim != 1 or kept.dtype != torch.long or len(kept) == 0:
            raise PruningError(
                f"Selection.kept must be a one-axis LongTensor with at least one index, not {tuple(kept.shape)} of "
                f"{kept.dtype}. From a mask: mask.nonzero()[:, 0]."
            )
        facts = [] if self.scores is None else [self.scores.isnan().any().to(kept.device)]
        facts += [] if trusted else [(kept[1:] > kept[:-1]).all(), kept[0], kept[-1]]
        answers = torch.stack(facts).tolist() if facts else []  # one wait for a GPU, not four
        nan = self.scores is not None and bool(answers.pop(0))
        ascending, first, last = answers or (True, 0, self.n_visual - 1)
        if not ascending:
            raise PruningError("Selection.kept must be ascending and unique: write kept.unique().")
        if first < 0 or last >= self.n_visual:
            raise PruningError(
                f"Selection.kept has indices in {first}..{last}, but the image has visual tokens "
                f"0..{self.n_visual - 1}. Indices count within one image, not within the prompt."
            )
        if self.scores is not None and self.scores.shape != (self.n_visual,):
            raise PruningError(
                f"Selection.scores has shape {tuple(self.scores.shape)}; it needs one score for each of the "
                f"{self.n_visual} visual tokens."
            )
        if nan:
            raise PruningError("importance scores must be numbers, and some are NaN.")

    def sizes(self, before: Float[Tensor, " visual"] | None = None) -> Float[Tensor, " kept"]:
        """How many tokens each kept one stands for: itself, and those merged into it that are not kept.

        before: the same for all tokens before the selection; None is 1 for each.

        A dropped token that is merged into several counts in each in proportion to its weights there, so that it
        counts once; one that is merged into none counts nowhere, and a kept one only as itself.
        """
        before = torch.ones(self.n_visual, device=self.kept.device) if before is None else before
        sizes = before[self.kept]
        if self.merged is None:
            return sizes
        targets, sources, weights = self.merged.targets, self.merged.sources, self.merged.weights.detach().float()
        totals = torch.zeros_like(before).index_add(0, sources, weights).clamp(min=torch.finfo(before.dtype).tiny)
        shares = (before / totals).index_fill(0, self.kept, 0.0)
        return sizes.index_add(0, targets, weights * shares[sources])

    @classmethod
    def first(
        cls, order: Int[Tensor, " visual"], n_kept: int, scores: Float[Tensor, " visual"] | None = None
    ) -> Selection:
        """The first `n_kept` of an order over all visual tokens, put back into their original order."""
        return cls(order[:n_kept].sort().values, len(order), None if scores is None else scores.detach())

    @classmethod
    def best(cls, scores: Float[Tensor, " visual"], n_kept: int) -> Selection:
        """The `n_kept` tokens with the highest scores; of equal ones the first."""
        order = scores.argsort(descending=True, stable=True)
        return cls(order[:n_kept].sort().values, len(order), scores.detach(), trusted=True)

    @classmethod
    def all(cls, n_visual: int, device: torch.device, scores: Float[Tensor, " visual"] | None = None) -> Selection:
        """Every token."""
        return cls(torch.arange(n_visual, device=device), n_visual, scores, trusted=True)


@dataclass(frozen=True, eq=False)
class Merge:
    """Which visual tokens are folded into which kept tokens, and with what weight: new[t] = sum of weight * old[s].

    targets: places within `kept`, of tokens whose features are replaced; others keep theirs, bit for bit.
    sources: indices of visual tokens, kept or dropped. A target's own old features count only if it is a source too.
    weights: multiplied as they are; a strategy that wants a mean gives weights that add up to 1.
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
    def concat(cls, parts: Sequence[Merge]) -> Merge:
        """The merges within several parts of an image as one, each already counted in the whole image."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("targets", "sources", "weights")))

    def of_whole(self, index: Int[Tensor, " part"], places: Int[Tensor, " kept"]) -> Merge:
        """A merge within a part of an image as one of the whole, where the part's visual tokens are `index` and its
        kept ones are at `places` within all kept ones."""
        return Merge(places[self.targets], index[self.sources], self.weights)

    @classmethod
    def none(cls, device: torch.device) -> Merge:
        """Nothing merged into anything."""
        nothing = torch.empty(0, dtype=torch.long, device=device)
        return cls(nothing, nothing, nothing.float())

    def then(self, second: Merge, before: Int[Tensor, " before"], kept: Int[Tensor, " kept"]) -> Merge:
        """This merge into the tokens `before`, and then `second` of these into `kept` of them, as one merge."""
        targets, sources, weights = self._pairs(before)
        to, through, shares = second._pairs(kept)
        counts = targets.bincount(minlength=len(before))
        of_pair = counts[through]  # a pair of the second merge becomes as many as its source is merged from
        pair = torch.arange(len(to), device=to.device).repeat_interleave(of_pair)
        first = (counts.cumsum(0) - counts)[through] - (of_pair.cumsum(0) - of_pair)
        at = torch.arange(len(pair), device=to.device) + first[pair]
        changed = torch.isin(kept, self.targets).index_fill(0, second.targets, True)[to[pair]]
        return Merge(to[pair][changed], sources[at][changed], (shares[pair] * weights[at])[changed])

    def _pairs(self, kept: Int[Tensor, " kept"]) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, sources and weights, by ascending target; a kept token that is no target is merged from itself."""
        same = torch.ones_like(kept, dtype=torch.bool).index_fill(0, self.targets, False).nonzero()[:, 0]
        targets, sources = torch.cat([self.targets, same]), torch.cat([self.sources, kept[same]])
        weights = torch.cat([self.weights.float(), torch.ones(len(same), device=kept.device)])
        order = targets.argsort(stable=True)
        return targets[order], sources[order], weights[order]

    def apply(self, features: Float[Tensor, "visual width"], kept: Int[Tensor, " kept"]) -> Float[Tensor, "kept width"]:
        """The features of the kept tokens, summed in float32."""
        result = features[kept]
        sums = torch.zeros(result.shape, dtype=torch.float32, device=result.device)
        length = max(1, PAIR_ELEMENTS // features.shape[1])
        pairs = zip(*(part.split(length) for part in (self.targets, self.sources, self.weights)), strict=True)
        for targets, sources, weights in pairs:
            sums = sums.index_add(0, targets, features[sources].float() * weights.float()[:, None])
        changed = torch.zeros_like(kept, dtype=torch.bool).index_fill(0, self.targets, True)
        return torch.where(changed[:, None], sums.to(result.dtype), result)


@dataclass(frozen=True, eq=False)
class StageReport:
    """The effect of one in-LLM stage on one image, from decoder layer `layer` on; in an image report's `in_tower`, the
    effect of pruning in the vision tower, from encoder layer `layer` on.

    kept: sorted indices within the image's visual tokens.
    scores: importance score of every visual token, NaN for tokens dropped earlier; None if the strategy gives none.
    merged: the tokens merged into kept ones; None if there are none.
    """

    layer: int
    kept: Int[Tensor, " kept"]
    scores: Float[Tensor, " visual"] | None = None
    merged: Merge | None = None


@dataclass(frozen=True, eq=False)
class StepReport:
    """What one of several strategies, applied one after the other, has left of an image.

    strategy: the name of its class.
    kept: sorted indices within the image's visual tokens.
    """

    strategy: str
    kept: Int[Tensor, " kept"]


@dataclass(frozen=True)
class Stage:
    """In-LLM pruning: from decoder layer `layer` on, a fraction `keep_ratio` or a count `keep` of all visual tokens of
    each image are left; fewer, if the strategy says so and the stage is `at_most`."""

    layer: int
    keep_ratio: float | None = None
    keep: int | None = None
    at_most: bool = False

    def budget(self, n_visual: int) -> int:
        """How many of an image's `n_visual` tokens are left."""
        return budget(n_visual, self.keep_ratio, self.keep)


def check_budget(owner: str, keep_ratio: object, keep: object) -> None:
    """Raise SettingError unless exactly one of the two is set, to a budget that is possible."""
    if keep is None:
        if not isinstance(keep_ratio, Real) or isinstance(keep_ratio, bool) or not 0 < float(keep_ratio) <= 1:
            raise SettingError(
                f"{owner}: keep_ratio={keep_ratio!r} is not a fraction in (0, 1]. It is the fraction of visual "
                f"tokens KEPT: write keep_ratio=0.25 to keep a quarter of them, or keep=64 to keep 64."
            )
    elif keep_ratio is not None:
        raise SettingError(
            f"{owner}: keep_ratio={keep_ratio!r} and keep={keep!r} are both set; write only one of them."
        )
    elif not isinstance(keep, Integral) or isinstance(keep, bool) or int(keep) < 1:
        raise SettingError(
            f"{owner}: keep={keep!r} is not a count of visual tokens. Write an integer of at least 1, such as "
            f"keep=64, or a fraction: keep_ratio=0.25."
        )


def budget(n_visual: int, keep_ratio: float | None, keep: int | None) -> int:
    """The number of visual tokens to keep of an image's `n_visual`. The only place that rounds.

    A ratio is rounded half up and never to 0; a count is capped at what the image has.
    """
    if keep is not None:
        return min(int(keep), n_visual)
    assert keep_ratio is not None
    return max(1, math.floor(keep_ratio * n_visual + 0.5))


def tile_share(n_visual: int, n_image: int | None, keep_ratio: float | None, keep: int | None) -> int:
    """The number of visual tokens to leave of a tile with `n_visual`, of an image with `n_image`.

    It is the budget of an image that is one tile. Otherwise it is the tile's share, rounded up, so that the tiles have
    at least the image's budget; if `n_image` is not known (None), of a count all of it.
    """
    if n_visual == n_image or (n_image is None and keep is not None):
        return budget(n_visual, keep_ratio, keep)
    ratio = keep_ratio if keep is None or n_image is None else min(1.0, keep / n_image)
    assert ratio is not None
    return max(1, math.ceil(ratio * n_visual - 1e-9))  # 0.1 * 30 is a bit more than 3


def n_reaching(scores: Float[Tensor, " left"], mass: float) -> int:
    """Count the fewest tokens whose scores add up to the share `mass` of the total; all tokens for a mass of 1.

    Raises PruningError for a negative score, with which a share of the total means nothing.
    """
    if mass == 1:
        return len(scores)
    ordered = scores.detach().float().sort(descending=True).values
    carried = ordered.cumsum(0) / ordered.sum().clamp(min=torch.finfo(ordered.dtype).tiny)
    below, negative = torch.stack([(carried < mass).sum(), (ordered < 0).any().long()]).tolist()  # one wait for a GPU
    if negative:
        raise PruningError(
            "some importance scores are negative, so no tokens carry a share of them. Leave out mass, or return scores "
            "of at least 0."
        )
    return min(int(below) + 1, len(scores))


def split(count: int, sizes: Sequence[int]) -> list[int]:
    """`count` split exactly into one integer per part, in proportion to the parts' sizes and spread evenly.

    No part gets more than its size if `count` is at most their sum.
    """
    ends = [end * count // sum(sizes) for end in accumulate(sizes, initial=0)] if sizes else [0]
    return [end - start for start, end in pairwise(ends)]
