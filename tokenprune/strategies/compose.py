"""Several strategies in sequence, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Merge, Selection, StepReport, scores_of_all
from tokenprune.strategies.parsing import StrategySpec
from tokenprune.strategy import (
    PatchStrategy,
    Record,
    ResizeStrategy,
    Stage,
    StagedStrategy,
    Strategy,
    TowerStrategy,
)
from tokenprune.strategy.base import check_is_selection, strategy_call
from tokenprune.tokens import PatchTokens, StageTokens, TowerTokens, VisualTokens

Kind = TypeVar("Kind", bound=Strategy)


@dataclass(frozen=True, init=False, repr=False)
class Compose(ResizeStrategy, PatchStrategy, TowerStrategy, StagedStrategy):
    """Applies strategies in sequence, each to the visual tokens that the previous one kept.

        Compose(PixelPrune(), FoPru(keep_ratio=0.25))

    In commands, `pixelprune+fopru`; in a settings file, the strategy "compose" with the setting
    "steps": ["pixelprune", "fopru:mode=row"].

    The budget of every step counts all visual tokens of the image, so the last one applies to the whole image: here a
    quarter of its tokens, or what PixelPrune keeps, if that is less. After Downsample, the image is the smaller one:
    `downsample:keep_ratio=0.5+mosaic:keep_ratio=0.5` leaves a quarter. The report's `steps` lists what each step before
    the language model kept. Position IDs are original by default, also after Downsample.

    steps: strategies, or strings for `parse`, in the order in which they prune: by shrinking the image, before
        the vision tower, in it, before the language model (any number), inside it. After the image is shrunk, none may
        prune before or in the tower.
    keep_ratio, keep: how much of the image as it was passed is left in the end, which sets the last step's budget:
        keep_ratio=0.25 after Downsample(keep_ratio=0.5) is half of the smaller image. No step may have
        `budget_per="tile"`.

    Raises SettingError for steps that cannot follow each other.
    """

    record: ClassVar[Record] = Record(
        keeps="what several strategies keep, applied in turn: `Compose(PixelPrune(), FoPru(keep_ratio=0.25))`",
    )

    steps: tuple[Strategy, ...] = ()

    def __init__(
        self,
        *strategies: Strategy | str,
        steps: Sequence[Strategy | str] = (),
        keep_ratio: float | None = None,
        keep: int | None = None,
        budget_per: str = "image",
    ) -> None:
        if isinstance(steps, str) or not isinstance(steps, Sequence):
            raise SettingError(f"Compose: steps={steps!r} is not a list; write steps=[PixelPrune(), FoPru()].")
        made = [_as_strategy(step) for step in (*strategies, *steps)]
        if len(made) < 2:
            raise SettingError("Compose needs at least two strategies: write Compose(PixelPrune(), FoPru()).")
        share, own = made[0].keep_ratio if isinstance(made[0], ResizeStrategy) else 1.0, made[-1].keep_ratio
        of_last = None if share is None or own is None else share * own
        if keep is not None or keep_ratio not in (None, of_last):
            made[-1] = replace(made[-1], keep_ratio=_of_smaller(keep_ratio, made[0], share), keep=keep)
        object.__setattr__(self, "steps", tuple(made))
        object.__setattr__(self, "keep_ratio", of_last if keep_ratio is None and keep is None else keep_ratio)
        object.__setattr__(self, "keep", made[-1].keep)
        object.__setattr__(self, "budget_per", budget_per)
        self._check()

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.steps))})"

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What any step needs."""
        return frozenset().union(*(step.needs for step in self.steps))

    @property
    def required_statistics(self) -> frozenset[str]:
        return frozenset().union(*(step.required_statistics for step in self.steps))

    @property
    def attention_layer(self) -> int | None:
        return next((step.attention_layer for step in self.steps if "vision_attention" in step.needs), None)

    @property
    def early_layer(self) -> int | None:
        return next((step.early_layer for step in self.steps if "early_attention" in step.needs), None)

    @property
    def reads_grid(self) -> bool:
        return any(step.reads_grid for step in self.steps)

    @property
    def selects_per_tile(self) -> bool:
        return False

    @property
    def biases_attention(self) -> bool:
        """Whether any step asks for it. Sizes count what all steps together merged before the language model, except
        what ToMe merged in the tower."""
        return any(step.biases_attention for step in self.steps)

    def budget(self, n_visual: int) -> int:
        first = self.steps[0]
        n_seen = first.budget(n_visual) if isinstance(first, ResizeStrategy) else n_visual
        return min(first.budget(n_visual), *(step.budget(n_seen) for step in self.steps[1:]))

    def resized_budget(self, n_visual: int) -> int:
        return self._only(ResizeStrategy).resized_budget(n_visual)

    def select_patches(self, tokens: PatchTokens) -> Selection:
        return self._only(PatchStrategy).select_patches(tokens)

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return self._only(TowerStrategy).tower_layers(n_layers)

    def tower_budget(self, n_visual: int, n_image: int | None) -> int:
        return self._only(TowerStrategy).tower_budget(n_visual, n_image)

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        return self._only(TowerStrategy).select_in_tower(tokens)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        last = self.steps[-1]
        return last.stages(n_layers) if isinstance(last, StagedStrategy) else ()

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return self._only(StagedStrategy).select_at(stage, tokens)

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        last = self.steps[-1]
        return last.skipped_layers(n_layers) if isinstance(last, StagedStrategy) else ()

    @property
    def recompute_every(self) -> int:
        return self.steps[-1].recompute_every

    @property
    def requires_expert(self) -> bool:
        return self.steps[-1].requires_expert

    def select(self, tokens: VisualTokens) -> Selection:
        n_visual, device, features = tokens.n_visual, tokens.features.device, tokens.features
        n_seen = n_visual  # tokens of the image that the tower gets
        kept, merged, scores, done = torch.arange(n_visual, device=device), Merge.none(device), None, []
        if isinstance(self.steps[0], PatchStrategy) and isinstance(self.steps[1], TowerStrategy):
            tokens = _bounded(tokens, self.steps[0].budget(n_visual))
        for step in self.steps:
            if isinstance(step, (ResizeStrategy, PatchStrategy, TowerStrategy)):
                selection, left = _of_left(_selected(step, tokens), kept)
                n_seen = len(left) if isinstance(step, ResizeStrategy) else n_seen
            else:
                n_left = min(step.budget(n_seen), len(kept))
                limited = step if len(kept) == n_seen else step.for_part(n_left, len(kept))
                selection = _selected(limited, tokens if not done else tokens.of_left(kept, features))
                left = selection.kept.to(device)
                if len(left) > n_left:
                    raise PruningError(
                        f"{type(step).__name__}.select kept {len(left)} visual tokens; its budget is {n_left}. Keep "
                        f"self.budget(tokens.n_visual) of them."
                    )
            scores = scores_of_all(selection.scores, kept, n_visual, missing=-torch.inf)  # lowest: dropped earlier
            second = Merge.none(device) if selection.merged is None else selection.merged
            merged = merged.then(second, kept, left) if len(second.targets) or len(merged.targets) else merged
            features = features[left] if selection.merged is None else selection.merged.apply(features, left)
            kept = kept[left]
            done.append(StepReport(type(step).__name__, kept))
        return Selection(kept, n_visual, scores, merged if len(merged.targets) else None, tuple(done))

    def _only(self, kind: type[Kind]) -> Kind:
        """The step of a kind that occurs at most once."""
        return next(step for step in self.steps if isinstance(step, kind))

    def _check(self) -> None:
        """Raise SettingError for steps that cannot follow each other."""
        for step in self.steps:
            if isinstance(step, StagedStrategy) and step.step_stages:
                raise SettingError(
                    f"Compose: {type(step).__name__} prunes between denoising steps, after all that Compose puts in "
                    f"order. Patch with {type(step).__name__}(...) alone."
                )
            if step.whole_image and isinstance(step, StagedStrategy):
                raise SettingError(
                    f"Compose: {type(step).__name__} works on whole images only, and prunes inside the language model "
                    f"too, so no strategy may come before or after it. Patch with {type(step).__name__}(...) alone."
                )
        places = [_place(step) for step in self.steps]
        for before, after, place, next_place in zip(self.steps, self.steps[1:], places, places[1:], strict=False):
            if place > next_place or place == next_place != BEFORE_MODEL:
                raise SettingError(
                    f"Compose: {type(after).__name__} prunes {PLACES[next_place]}, and {type(before).__name__} before "
                    f"it prunes {PLACES[place]}. Write them in the order in which they prune, at most one for each "
                    f"place except before the language model."
                )
        shrinks = isinstance(self.steps[0], ResizeStrategy)
        for step in self.steps:
            if shrinks and isinstance(step, (PatchStrategy, TowerStrategy)):
                raise SettingError(
                    f"Compose: {type(step).__name__} prunes before or in the vision tower, which is not supported with "
                    f"{type(self.steps[0]).__name__}. Use one that prunes after the tower, such as FoPru."
                )
        for step in self.steps[2 if shrinks else 1 :]:
            if step.whole_image:
                use = "Put it first, or use" if places[0] == BEFORE_MODEL else "Use"
                raise SettingError(
                    f"Compose: {type(step).__name__} works on whole images only, and {type(self.steps[0]).__name__} "
                    f"leaves a part. {use} another one, such as FoPru or DivPrune."
                )
        tiled = [step for step in self.steps if step.budget_per == "tile"]
        for one in tiled if self.budget_per == "image" else [self]:
            name = type(one).__name__
            raise SettingError(f'Compose: tiles do not survive a step. Write {name}(budget_per="image", ...).')
        layers = {step.attention_layer for step in self.steps if "vision_attention" in step.needs}
        if len(layers) > 1:
            raise SettingError(
                f"Compose: the steps read the attention of encoder layers {sorted(map(str, layers))}, but only that of "
                f"one layer is recorded. Give them the same layer=."
            )


BEFORE_MODEL = 3
PLACES = (
    "by shrinking the image",
    "before the vision tower",
    "in the vision tower",
    "before the language model",
    "inside the language model",
)


def _place(step: Strategy) -> int:
    kinds = (ResizeStrategy, PatchStrategy, TowerStrategy, None, StagedStrategy)
    return next((i for i, kind in enumerate(kinds) if kind is not None and isinstance(step, kind)), BEFORE_MODEL)


def _of_smaller(keep_ratio: float | None, first: Strategy, share: float | None) -> float | None:
    """What keep_ratio of the image as it was passed is of the image that the next step gets. Raises SettingError if it
    is more than the first step leaves, or if that leaves a count."""
    if keep_ratio is None or share == 1 or not isinstance(keep_ratio, (int, float)):  # of no number, the step complains
        return keep_ratio
    if share is None or keep_ratio > share:
        raise SettingError(
            f"Compose: keep_ratio={keep_ratio!r} counts the whole image, of which {first!r} leaves "
            f"{'a count' if share is None else 'less'}. Write a keep_ratio of at least {keep_ratio!r} in that step."
        )
    return keep_ratio / share


def _as_strategy(step: Any) -> Strategy:
    if isinstance(step, str):
        return StrategySpec.read_step(step).make()
    if isinstance(step, Compose) or not isinstance(step, Strategy):
        raise SettingError(
            f"Compose: {step!r} is not a strategy to compose. Write Compose(PixelPrune(), FoPru(), ...)."
        )
    return step


def _selected(step: Strategy, tokens: VisualTokens) -> Selection:
    with strategy_call(step, "select", tokens.features):
        selection = step.select(tokens)
    check_is_selection(step, "select", selection, tokens.n_visual)
    return selection


def _bounded(tokens: VisualTokens, most: int) -> VisualTokens:
    """The tokens, cut to `most` before the tower if all frames together exceed it: tokens dropped in the tower go
    first, then those with the lowest scores."""
    before, after = tokens.kept_before_tower, tokens.kept_in_tower
    if len(before.kept) <= most:
        return tokens
    kept = before.within(after.kept).at_most(most).kept
    both = {"kept_before_tower": before.within(kept), "kept_in_tower": after.within(kept)}
    return replace(tokens, statistics={**tokens.statistics, **both})


def _of_left(selection: Selection, kept: Tensor) -> tuple[Selection, Tensor]:
    """Restrict a selection among all tokens of the image to those `kept` in the tower or before it."""
    left = torch.isin(kept, selection.kept.to(kept.device)).nonzero()[:, 0]
    scores, merged = None if selection.scores is None else selection.scores[kept], selection.merged
    if merged is not None:
        merged = Merge(merged.targets, torch.searchsorted(kept, merged.sources), merged.weights)
    return Selection(left, len(kept), scores, merged), left
