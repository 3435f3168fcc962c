"""What is kept of one image, what is merged into it, and how many tokens may be kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from itertools import accumulate, pairwise
from operator import index
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.errors import PruningError, SettingError
from tokenprune.selection.merge import Merge, describe
from tokenprune.selection.steps import StepReport


@dataclass(frozen=True, eq=False)
class Selection:
    """The outcome for one image.

    kept: indices of the kept visual tokens, ascending and unique, out of `n_visual`.
    scores: one importance score per visual token, detached, because reports keep them; None if there are none.
    merged: what is merged into kept tokens, if anything is.
    steps: what each strategy kept, for strategies in sequence.

    Raises PruningError for anything else, so code that gets a Selection need not check it again.
    """

    kept: Int[Tensor, " kept"]
    n_visual: int
    scores: Float[Tensor, " visual"] | None = None
    merged: Merge | None = None
    steps: tuple[StepReport, ...] = ()
    trusted: InitVar[bool] = False  # kept and merged are right by construction, so no GPU is waited for to check them

    def __post_init__(self, trusted: bool) -> None:
        kept, merged = self.kept, None if trusted else self.merged
        if trusted and self.scores is None:
            return
        if self.scores is not None:
            object.__setattr__(self, "scores", _checked_scores(self.scores, self.n_visual))
        if not isinstance(kept, Tensor) or kept.ndim != 1 or kept.dtype != torch.long or len(kept) == 0:
            raise PruningError(
                f"Selection.kept must be a one-axis LongTensor with at least one index, not {describe(kept)}. From a "
                f"mask: mask.nonzero()[:, 0]."
            )
        if merged is not None and not isinstance(merged, Merge):
            raise PruningError(f"Selection.merged is {describe(merged)}; write Merge(targets, sources, weights).")
        facts = [] if self.scores is None else [self.scores.isnan().any().to(kept.device)]
        facts += [] if merged is None else [merged.fits(self.n_visual, len(kept)).to(kept.device)]
        facts += [] if trusted else [(kept[1:] > kept[:-1]).all(), kept[0], kept[-1]]
        answers = torch.stack(facts).tolist() if facts else []  # one wait for a GPU, not five
        nan = self.scores is not None and bool(answers.pop(0))
        fits = merged is None or bool(answers.pop(0))
        ascending, first, last = answers or (True, 0, self.n_visual - 1)
        if not ascending:
            raise PruningError("Selection.kept must be ascending and unique: write kept.unique().")
        if first < 0 or last >= self.n_visual:
            raise PruningError(
                f"Selection.kept has indices in {first}..{last}, but the image has visual tokens "
                f"0..{self.n_visual - 1}. Indices count within one image, not within the prompt."
            )
        if nan:
            raise PruningError(
                "importance scores must be numbers, and some are NaN. Look for 0/0, inf - inf and for roots and "
                "logarithms of negative numbers; scores.nan_to_num() replaces NaN."
            )
        if not fits:
            raise PruningError(
                f"Selection.merged has weights that are not finite, or merges other tokens than sources 0.."
                f"{self.n_visual - 1} into targets 0..{len(kept) - 1}. Targets are places within kept: "
                f"torch.searchsorted(kept, tokens). Merge.mean takes importances of at least 0, and above 0 for one "
                f"source of every target."
            )

    def sizes(self, before: Float[Tensor, " visual"] | None = None) -> Float[Tensor, " kept"]:
        """How many tokens each kept token stands for: itself, and the dropped tokens merged into it.

        before: the sizes of all tokens before the selection; None is 1 for each.

        A dropped token that is merged into several is divided among them in proportion to its weights there, so that it
        counts once; one that is merged into none counts nowhere, and a kept token only as itself.
        """
        if before is None:
            before = torch.ones(self.n_visual, dtype=torch.float32, device=self.kept.device)
        sizes = before[self.kept]
        if self.merged is None:
            return sizes
        targets, sources, weights = self.merged.targets, self.merged.sources, self.merged.weights.detach().float()
        totals = torch.zeros_like(before).index_add(0, sources, weights).clamp(min=torch.finfo(before.dtype).tiny)
        shares = (before / totals).index_fill(0, self.kept, 0.0)
        return sizes.index_add(0, targets, weights * shares[sources])

    def to(self, device: torch.device) -> Selection:
        """The same selection on a device, apart from its steps."""
        if self.kept.device == device:
            return self
        scores = None if self.scores is None else self.scores.to(device)
        merged = None if self.merged is None else self.merged.to(device)
        return Selection(self.kept.to(device), self.n_visual, scores, merged, self.steps, trusted=True)

    @classmethod
    def first(
        cls, order: Int[Tensor, " visual"], n_kept: int, scores: Float[Tensor, " visual"] | None = None
    ) -> Selection:
        """The first `n_kept` of an order over all visual tokens, put back into their original order."""
        _check_count("first", n_kept)
        return cls(order[:n_kept].sort().values, len(order), None if scores is None else scores.detach())

    @classmethod
    def best(cls, scores: Float[Tensor, " visual"], n_kept: int) -> Selection:
        """The `n_kept` tokens with the highest scores; among equal scores, the first."""
        _check_count("best", n_kept)
        if isinstance(scores, Tensor) and scores.ndim == 1 and not scores.is_complex():
            order = scores.argsort(descending=True, stable=True)
            return cls(order[:n_kept].sort().values, len(order), scores.detach(), trusted=True)
        raise PruningError(
            f"Selection.best(scores, n_kept) got scores that are {describe(scores)}; it needs one score for each "
            f"visual token, in a one-axis tensor of floats."
        )

    @classmethod
    def all(cls, n_visual: int, device: torch.device, scores: Float[Tensor, " visual"] | None = None) -> Selection:
        """Every token."""
        return cls(torch.arange(n_visual, device=device), n_visual, scores, trusted=True)


def _checked_scores(scores: object, n_visual: int) -> Tensor:
    """The scores as floats without their graph. Raises PruningError unless there is one for each visual token."""
    if not isinstance(scores, Tensor) or scores.shape != (n_visual,) or scores.is_complex():
        raise PruningError(
            f"Selection.scores is {describe(scores)}; it needs one score for each of the {n_visual} visual tokens, in "
            f"a tensor of floats."
        )
    scores = scores.detach() if scores.requires_grad else scores
    return scores if scores.is_floating_point() else scores.float()


def _check_count(method: str, n_kept: Any) -> None:
    """Raise PruningError unless that many tokens can be kept: a negative number would leave out the last ones. A
    one-integer tensor is a number, too."""
    try:
        count = index(n_kept)
    except TypeError:
        count = 0
    if count < 1:
        raise PruningError(
            f"Selection.{method} was told to keep {n_kept!r} tokens, which is not an integer of at least 1. Write "
            f"self.budget(tokens.n_visual)."
        )


def budget(n_visual: int, keep_ratio: float | None, keep: int | None) -> int:
    """The number of visual tokens to keep of an image's `n_visual`.

    A ratio is rounded half up and never to 0; a count is capped at `n_visual`. Raises SettingError if neither is given.
    """
    if keep is not None:
        return min(int(keep), n_visual)
    if keep_ratio is None:
        raise SettingError(
            "a budget has neither keep_ratio nor keep. Call super().__post_init__() first in the __post_init__ of your "
            "strategy, and give every Stage one of the two: Stage(layer, keep_ratio=0.25)."
        )
    return max(1, math.floor(keep_ratio * n_visual + 0.5))


def tile_share(n_visual: int, n_image: int | None, keep_ratio: float | None, keep: int | None) -> int:
    """The number of visual tokens to leave in a tile with `n_visual`, of an image with `n_image`.

    For an image of one tile, this is the image's budget. Otherwise it is the tile's share, rounded up, so that the
    tiles have at least the image's budget; a count is not divided if `n_image` is not known (None).
    """
    if n_visual == n_image or (n_image is None and keep is not None):
        return budget(n_visual, keep_ratio, keep)
    ratio = keep_ratio if keep is None or n_image is None else min(1.0, keep / n_image)
    assert ratio is not None
    return max(1, math.ceil(ratio * n_visual - 1e-9))  # 0.07 * 100 is a bit more than 7


def n_reaching(scores: Float[Tensor, " left"], mass: float) -> int:
    """Count the fewest tokens whose scores add up to the share `mass` of the total; all tokens for a mass of 1.

    Raises PruningError for a negative or infinite score, with which a share of the total means nothing.
    """
    if mass == 1:
        return len(scores)
    ordered = scores.detach().float().sort(descending=True).values
    carried = ordered.cumsum(0) / ordered.sum().clamp(min=torch.finfo(ordered.dtype).tiny)
    counts = [(carried < mass).sum(), (ordered < 0).any().long(), ordered.isinf().any().long()]
    below, negative, infinite = torch.stack(counts).tolist()  # one wait for a GPU
    if negative or infinite:
        kind = "negative" if negative else "infinite"
        raise PruningError(
            f"some importance scores are {kind}, so no tokens carry a share of them. Leave out mass, or return finite "
            f"scores of at least 0."
        )
    return min(int(below) + 1, len(scores))


def split(count: int, sizes: Sequence[int]) -> list[int]:
    """Split `count` exactly into one integer per part, in proportion to the parts' sizes and spread evenly.

    No part gets more than its size if `count` is at most their sum.
    """
    ends = [end * count // sum(sizes) for end in accumulate(sizes, initial=0)] if sizes else [0]
    return [end - start for start, end in pairwise(ends)]
