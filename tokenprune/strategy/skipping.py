"""Strategies that skip decoder layers."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenprune.checks import is_integer
from tokenprune.errors import SettingError
from tokenprune.strategy.staged import StagedStrategy

#: Decoder layers at either end that are never skipped.
ENDS = 2


@dataclass(frozen=True)
class SkippingStrategy(StagedStrategy):
    """Skips the decoder layers of `skip`.

    skip: decoder layers, counted from 0 and ascending, as `tokenprune layers` finds them for a model with a few
        unlabelled questions; or a count, which skips that many layers right before the last two. The first two and the
        last two layers cannot be skipped. keep_ratio counts visual tokens only, whichever layers are skipped.
    """

    # Keyword-only, so that a subclass's own settings keep their positions.
    skip: int | tuple[int, ...] | list[int] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.skip, list):  # settings files have lists
            object.__setattr__(self, "skip", tuple(self.skip))
        numbers = self.skip if isinstance(self.skip, tuple) else (self.skip,)
        if not all(is_integer(n) and n >= 0 for n in numbers):
            raise SettingError(
                f"{type(self).__name__}: skip={self.skip!r} does not name decoder layers. Write skip=(7, 9) for layers "
                f"7 and 9, or a count: skip=2."
            )

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        last = n_layers - ENDS
        # A count may exceed the number of layers.
        layers = tuple(range(max(last - self.skip, 0), last)) if isinstance(self.skip, int) else tuple(self.skip)
        if any(not ENDS <= layer < last for layer in layers):
            between = f"choose from {ENDS}..{last - 1}" if last > ENDS else "this model has no others"
            raise SettingError(
                f"{type(self).__name__}: skip={self.skip!r} reaches into the first or last {ENDS} of {n_layers} "
                f"decoder layers, which are never skipped; {between}."
            )
        return layers
