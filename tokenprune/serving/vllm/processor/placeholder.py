"""The placeholder of an image or video in a prompt, and how short those of one prompt must be to fit its limit."""

# pyright: reportMissingImports=false

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from vllm.multimodal.processing import PromptUpdateDetails

from tokenprune.errors import SettingError
from tokenprune.serving.vllm.settings import KEEP_IN_PROMPT, Budget, Settings


@dataclass
class PrunedPlaceholder(PromptUpdateDetails):
    """The placeholder of an image or video that keeps `n_kept` visual tokens; `parts` says how many each of its
    separately pruned parts has. `whole`: whether no budget prunes it."""

    parts: tuple[int, ...] = ()
    n_kept: int = 0
    whole: bool = False

    @property
    def n_visual(self) -> int:
        return sum(self.parts)


def fitting_ratio(settings: Settings, images: Sequence[PrunedPlaceholder], most: int) -> float:
    """The largest keep ratio, in steps of a visual token, at which the images and videos of a prompt keep at most
    `most` together. Raises SettingError if even one token of each part is more."""
    pruned = [image for image in images if not image.whole]
    parts = [n for image in pruned for n in ((image.n_visual,) if settings.shrinks else image.parts)]
    n_whole = sum(image.n_visual for image in images if image.whole)
    if len(parts) + n_whole > most:
        others = f", beside the {n_whole} of images, which this strategy does not prune" if n_whole else ""
        raise SettingError(
            f"{KEEP_IN_PROMPT}={most} is less than one visual token for each of the {len(parts)} images, frames or "
            f"tiles of this prompt{others}. Send fewer, or a higher {KEEP_IN_PROMPT}."
        )
    most -= n_whole
    total = sum(parts)
    ratios = [Budget(count / total) for count in range(1, min(most, total) + 1)]

    def exceeds(ratio: Budget) -> bool:
        return sum(settings.budget(n, ratio) for n in parts) > most

    fitting = bisect_left(ratios, True, key=exceeds)
    return cast("float", ratios[max(fitting - 1, 0)].keep_ratio)
