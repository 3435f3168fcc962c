"""Stages, from which on fewer visual tokens are left: of decoder layers, and of denoising steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenprune.checks import check_budget, is_integer
from tokenprune.errors import SettingError
from tokenprune.selection import budget


class StageBudget:
    """The budget of a stage: a fraction `keep_ratio` or a count `keep`. Raises SettingError if both are set, or if the
    stage starts at anything but a number."""

    start: ClassVar[tuple[str, str]]  # what the number is of, and an example

    keep_ratio: float | None
    keep: int | None

    def __post_init__(self) -> None:
        name, (what, example) = type(self).__name__, self.start
        if self.keep_ratio is not None or self.keep is not None:
            check_budget(name, self.keep_ratio, self.keep)
        field = what.split()[-1]
        if not is_integer(value := getattr(self, field)):
            raise SettingError(
                f"{name}: {field}={value!r} is not the number of a {what}; write an integer, such as {example}."
            )

    def budget(self, n_visual: int) -> int:
        """How many of an image's `n_visual` tokens are kept."""
        return budget(n_visual, self.keep_ratio, self.keep)


@dataclass(frozen=True)
class Stage(StageBudget):
    """In-LLM pruning: from decoder layer `layer` on, each image keeps a fraction `keep_ratio` or a count `keep` of all
    its visual tokens; or fewer, if the strategy selects fewer and the stage is `at_most`.

    looks_ahead: whether `tokens.attention` is that of `layer` itself, which is about to be entered, instead of that of
        the layer before. Its queries and keys are computed for this alone, and of the queries only the last token's.
    """

    start: ClassVar[tuple[str, str]] = "decoder layer", "n_layers // 2"

    layer: int
    keep_ratio: float | None = None
    keep: int | None = None
    at_most: bool = False
    looks_ahead: bool = False

    @property
    def read_layer(self) -> int:
        """The decoder layer whose attention the stage reads."""
        return self.layer if self.looks_ahead else self.layer - 1


@dataclass(frozen=True)
class DenoisingStage(StageBudget):
    """Late-step pruning: from denoising step `step` of every canvas on, counted from 0, only a fraction `keep_ratio` or
    a count `keep` of each image's visual tokens is read."""

    start: ClassVar[tuple[str, str]] = "denoising step", "step=4"

    step: int
    keep_ratio: float | None = None
    keep: int | None = None
