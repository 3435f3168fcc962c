"""VFlowOpt (https://arxiv.org/abs/2508.05211)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from tokenprune.checks import check_flags, check_no_count, is_number
from tokenprune.errors import SettingError
from tokenprune.selection import Selection, budget
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.importance import importance_map
from tokenprune.strategies.shared.recycling import recycle_by_cell
from tokenprune.strategy import AttentionStrategy, MergingStrategy, Record, Stage, StagedStrategy
from tokenprune.tokens import VisualTokens
from tokenprune.tokens.cells import grid_cells


@register_strategy("vflowopt")
@dataclass(frozen=True)
class VFlowOpt(AttentionStrategy, MergingStrategy, StagedStrategy):
    """Ranks visual tokens once, by an importance map of the vision tower, and prunes by it in three stages: before the
    language model, and on entry to the second and last third of its layers. Tokens dropped by the first stage are
    recycled.

    keep_ratio: the average over the layers, because every stage keeps fewer tokens. A count `keep` is rejected.
    first: the share R1 of the visual tokens that enter the language model; None is 1.15 times keep_ratio.
    second: the share R2 of those that enter the second third. The share R3 of the last third follows from keep_ratio;
        raises SettingError if no R3 in (0, 1] gives that average.
    threshold: the attention that makes a patch an anchor of the map, as a multiple of the mean.
    alpha: the weight of the patches' entropies in the map; 0 in the released settings.
    cell: the side of a recycling cell in visual tokens; None is half the shorter side of the grid, or of the largest of
        several grids.
    recycle, progressive: False disables that part, whose other settings then do nothing, so that a settings file can be
        tried without it. Without stages, keep_ratio of the tokens are kept throughout. A language model of fewer than
        three layers has no thirds: SettingError, unless progressive is False.
    layer: the encoder layer of the map; None is the one whose output the projector gets.
    as_released: compute the map as the released code does: average over the anchors instead of summing, and measure
        entropies in bits. If alpha is 0, this matters only where the tiles of an image, which may have unequal numbers
        of anchors, compete.

    Other deviations from the released code: position IDs are kept, as in the paper; the entropy is that of the image's
    own grey values; if no patch reaches the threshold, the best one is an anchor; the budget is exact with recycling;
    the tokens of videos are recycled too, frame by frame, where the code drops them; a newline token gets the score of
    the best token of its row, where the code gives it a score of 1, which spends the budget on nearly all newline
    tokens. Newline tokens are not merged.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "the tokens that score highest on an importance map, in three stages; merges dropped tokens; "
            "`tokenprune optimize` calibrates it"
        ),
        source="paper, with the released settings' alpha, a threshold among them (28.7 to 39.3), and R2 of 10 %",
        published={
            "second": 1.0,
            "threshold": 30.0,
            "alpha": 0.0,
            "recycle": True,
            "progressive": True,
            "as_released": False,
        },
        stages=([9, 18], [10, 20], [12, 24]),
        waits=(7, 6),
    )

    whole_image: ClassVar[bool] = True

    first: float | None = None
    second: float = 1.0
    threshold: float = 30.0
    alpha: float = 0.0
    cell: float | None = None
    recycle: bool = True
    progressive: bool = True
    as_released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_no_count("VFlowOpt", self.keep)
        check_flags("VFlowOpt", recycle=self.recycle, progressive=self.progressive, as_released=self.as_released)
        for name in ("threshold", "alpha"):
            value = getattr(self, name)
            if not is_number(value) or not math.isfinite(value):
                raise SettingError(
                    f"VFlowOpt: {name}={value!r} is not a finite number; write one, or leave {name} out."
                )
        for name in ("first", "second"):
            value, solved = getattr(self, name), name == "first" and self.first is None
            if not solved and not (is_number(value) and 0 < value <= 1):
                raise SettingError(
                    f"VFlowOpt: {name}={value!r} is not a share of visual tokens; write a number in (0, 1]."
                )
        if self.cell is not None and not (is_number(self.cell) and self.cell >= 1):
            raise SettingError(
                f"VFlowOpt: cell={self.cell!r} is not a side in visual tokens; write a number of at least 1."
            )

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The attention and, for entropies, the image's colours; entropies have no weight unless alpha is set."""
        return frozenset({"vision_attention", "colors"} if self.alpha else {"vision_attention"})

    @property
    def reads_grid(self) -> bool:
        return self.recycle

    @property
    def entering(self) -> float:
        """The share R1 of the visual tokens that enter the language model."""
        assert self.keep_ratio is not None
        if not self.progressive:
            return self.keep_ratio
        return min(1.0, 1.15 * self.keep_ratio) if self.first is None else self.first

    def budget(self, n_visual: int) -> int:
        return budget(n_visual, self.entering, None)

    def for_part(self, n_kept: int, n_visual: int) -> VFlowOpt:
        share = n_kept / n_visual
        return replace(self, keep_ratio=share, first=share, budget_per="image")

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        """Return the second and third stage; their shares refer to all visual tokens."""
        if not self.progressive or (n_layers < 3 and self.entering == self.keep_ratio):
            return ()
        if n_layers < 3:
            raise SettingError(
                f"VFlowOpt: a language model of {n_layers} layers has no thirds to prune in, so {self.entering:.3g} of "
                f"the tokens would stay in all of them, and not the average of {self.keep_ratio}. Write "
                f"progressive=False."
            )
        third = n_layers // 3
        return (
            Stage(third, self.entering * self.second),
            Stage(2 * third, self.entering * self.second * self.last(n_layers)),
        )

    def last(self, n_layers: int) -> float:
        """Solve (R1 L1 + R1 R2 L2 + R1 R2 R3 L3) / L = keep_ratio for R3."""
        assert self.keep_ratio is not None
        third = n_layers // 3
        first, second = self.entering, self.entering * self.second
        rest = self.keep_ratio * n_layers - (first + second) * third
        if rest <= 0:
            raise SettingError(
                f"VFlowOpt: first={first:.3g} and second={self.second:.3g} use up an average of {self.keep_ratio} "
                f"before the last third of {n_layers} layers. Lower one of them."
            )
        share = rest / ((n_layers - 2 * third) * second)
        if share > 1 + 1e-9:
            raise SettingError(
                f"VFlowOpt: first={first:.3g} and second={self.second:.3g} keep fewer tokens than an average of "
                f"{self.keep_ratio} needs, even if the last third of {n_layers} layers drops none. Raise one of them."
            )
        return min(1.0, share)

    def select(self, tokens: VisualTokens) -> Selection:
        colors = tokens.colors if self.alpha else None
        scores = importance_map(
            tokens.vision_attention, self.threshold, self.alpha, colors, as_released=self.as_released
        )
        n_kept = self.budget(tokens.n_visual)
        if not self.recycle:
            return Selection.best(scores, n_kept)
        side = self.cell or max(1.0, max(min(grid[1:]) for grid in tokens.grids) / 2)
        cells, n_cells = grid_cells(tokens.layout, side)
        newline = tokens.is_newline if tokens.n_newlines else None
        return recycle_by_cell(scores, cells.to(scores.device), n_cells, n_kept, newline)
