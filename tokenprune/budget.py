"""How many visual tokens are kept. The only place that rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from numbers import Integral, Real

from tokenprune.errors import SettingError


def check_budget(owner: str, keep_ratio: object, keep: object) -> None:
    """Raises SettingError unless exactly one of the two is set, and to something that can be kept."""
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
    """The number of visual tokens to keep of an image's `n_visual`.

    A ratio is rounded half up and never to 0; a count is capped at what the image has.
    """
    if keep is not None:
        return min(int(keep), n_visual)
    assert keep_ratio is not None
    return max(1, math.floor(keep_ratio * n_visual + 0.5))


def split(count: int, sizes: Sequence[int]) -> list[int]:
    """`count` split exactly into one integer per part, in proportion to the parts' sizes and spread evenly.

    No part gets more than its size if `count` is at most their sum.
    """
    ends = [end * count // sum(sizes) for end in accumulate(sizes, initial=0)] if sizes else [0]
    return [end - start for start, end in pairwise(ends)]
