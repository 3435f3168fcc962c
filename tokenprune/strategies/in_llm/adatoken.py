"""AdaToken-3D (https://arxiv.org/abs/2505.12782)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from tokenprune.checks import check_no_count, is_number
from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, ScoreStrategy, Stage, StagedStrategy
from tokenprune.strategy.stage import layers_at, looking_ahead, powered_stages
from tokenprune.tokens import StageTokens

#: One of the released schedules, for 32 layers: the depths, and the share of all visual tokens left from each on.
DEPTHS, SHARES = (8 / 32, 16 / 32, 24 / 32), (0.8, 0.5, 0.25)


@register_strategy("adatoken")
@dataclass(frozen=True)
class AdaToken(StagedStrategy, ScoreStrategy):
    """Prunes in stages, on a schedule calibrated for the model. Each stage keeps the visual tokens that the
    last prompt token attends to most.

    keep_ratio: the average over the layers. All shares of the schedule are raised to the power that gives it; at
        the schedule's own average, which `tokenprune layers --stages` prints, they stay as they are. The default is
        that of the released schedule, 0.6375. A count `keep` is rejected.
    schedule: for each stage, by ascending layer, its decoder layer and the share of all visual tokens kept from there
        on: ((8, 0.8), (16, 0.5)). `tokenprune layers --stages 3` finds one for a model. None is one of the released
        schedules: 0.8, 0.5 and 0.25 from a quarter, a half and three quarters of the layers on.
    cells: rank within cells of the grid, see `ScoreStrategy`. The paper has no cells.

    The paper adapts to the model, not to the image. As in the released code, the attention is that of the layer about
    to be entered. Deviation: position IDs are kept. Those of the calibration are in `tokenprune.evals.search.adatoken`.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "the tokens that the last prompt token attends to most, in stages that `tokenprune layers --stages 3` "
            "calibrates"
        ),
        published={"keep_ratio": (1 + 0.8 + 0.5 + 0.25) / 4},
        stages=([7, 14, 21], [8, 16, 24], [9, 18, 27]),
        waits=(4, 3),
    )

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True
    default_keep_ratio: ClassVar[float] = (1 + sum(SHARES)) / 4

    schedule: Sequence[Sequence[Any]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_no_count("AdaToken", self.keep)
        if self.schedule is not None:
            object.__setattr__(self, "schedule", checked_schedule(self.schedule))

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        assert self.keep_ratio is not None
        if self.schedule is not None:
            layers, shares = zip(*self.schedule, strict=True)
        else:
            layers = layers_at(DEPTHS, n_layers)
            shares = SHARES[: len(layers)]
        stages = powered_stages("AdaToken", [int(layer) for layer in layers], shares, n_layers, self.keep_ratio)
        return looking_ahead(stages)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return self.best(tokens.attention.from_last(), stage.budget(tokens.n_visual), tokens)


def checked_schedule(schedule: Any) -> tuple[tuple[int, float], ...]:
    """Return a schedule as a tuple of layers and shares. Raises SettingError unless layers are whole numbers that
    ascend from 1, and shares descend within (0, 1)."""
    try:
        pairs = [(layer, share) for layer, share in schedule]
    except (TypeError, ValueError):
        pairs = []
    whole = all(is_number(layer) and layer % 1 == 0 and is_number(share) and 0 < share < 1 for layer, share in pairs)
    stages = tuple((int(layer), float(share)) for layer, share in pairs) if whole else ()
    ascending = all(a[0] < b[0] and a[1] >= b[1] for a, b in pairwise(stages))
    if not stages or not ascending or stages[0][0] < 1:
        raise SettingError(
            f"AdaToken: schedule={schedule!r} is not a list of decoder layers, ascending from 1, and shares of the "
            f"visual tokens, descending within 0 and 1; write schedule=((8, 0.8), (16, 0.5))."
        )
    return stages
