"""What happened to one image or video under several setups: tokens kept, importance scores, answer, cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from PIL import Image

from tokenprune.evals.boxes import HIT, Box, iou
from tokenprune.evals.explain.canvas import Canvas
from tokenprune.evals.run.costs import mean_kept
from tokenprune.evals.run.setups import Setup
from tokenprune.report import ImageReport


@dataclass(frozen=True, eq=False)
class Kept:
    """The fate of each visual token; the masks have one bool per token.

    entered: tokens that entered the language model. left: those that its last layer still saw. received: kept tokens
        that others were merged into. n_mean: tokens per decoder layer, averaged over the layers.
    scores: importance, higher = keep; NaN for tokens that were not scored; None if the strategy gives none.
    scored_at: the decoder layer that they were given on entry to; None for before the language model.
    """

    entered: np.ndarray
    left: np.ndarray
    received: np.ndarray
    n_mean: float
    scores: np.ndarray | None = None
    scored_at: int | None = None

    @property
    def n_visual(self) -> int:
        return len(self.entered)

    @property
    def n_kept(self) -> int:
        return int(self.entered.sum())

    @property
    def summary(self) -> str:
        if self.n_mean == self.n_kept:
            return f"{self.n_kept} of {self.n_visual} visual tokens"
        return f"{self.n_mean:.4g} of {self.n_visual} tokens a layer"

    @classmethod
    def all_tokens(cls, n_visual: int) -> Kept:
        every = np.ones(n_visual, dtype=bool)
        return cls(every, every, ~every, float(n_visual))

    @classmethod
    def first(cls, n_kept: int, n_visual: int) -> Kept:
        """The tokens of a smaller image, numbered from 0, of `n_visual` that the whole image has."""
        kept = np.arange(n_visual) < n_kept
        return cls(kept, kept, np.zeros(n_visual, dtype=bool), float(n_kept))

    @classmethod
    def of(cls, image: ImageReport, executed: Sequence[bool]) -> Kept:
        """Read a report; scores are those of the first stage that has any. `executed`: by decoder layer."""
        entered, left, received = (np.zeros(image.n_visual, dtype=bool) for _ in range(3))
        entered[image.kept.cpu().numpy()] = True
        left[image.kept_at(len(executed) - 1).cpu().numpy()] = True
        for part in (image, *image.stages):
            if part.merged is not None:
                received[part.kept[part.merged.targets].cpu().numpy()] = True
        scored = next((part for part in (image, *image.stages) if part.scores is not None), None)
        return cls(
            entered,
            left,
            received & left,
            mean_kept(image, executed),
            None if scored is None or scored.scores is None else scored.scores.float().cpu().numpy(),
            getattr(scored, "layer", None),
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """One setup's kept tokens, answer and cost.

    box: the answered box in pixels of the image, or None.
    iou: of `box` and the true box; 0 without a box, None if the true one is unknown.
    ttft: time to first token, as a ratio to the unpruned model's; None if not measured.
    canvas: of a smaller image, if the model saw one.
    """

    setup: Setup
    kept: Kept
    answer: str
    box: Box | None
    iou: float | None
    kv_cache_bytes: int
    ttft: float | None = None
    canvas: Canvas | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image and one question under several setups, the unpruned model first."""

    model: str
    image: Image.Image
    question: str
    true_box: Box | None
    canvas: Canvas
    outcomes: Sequence[Outcome] = field(default_factory=list)

    @property
    def unpruned(self) -> Outcome:
        return self.outcomes[0]

    @cached_property
    def has_boxes(self) -> bool:
        return any(outcome.box is not None for outcome in self.outcomes)

    @cached_property
    def has_later(self) -> bool:
        """Whether any token is dropped inside the language model."""
        return any((outcome.kept.entered & ~outcome.kept.left).any() for outcome in self.outcomes)

    @cached_property
    def has_merged(self) -> bool:
        return any(outcome.kept.received.any() for outcome in self.outcomes)

    def overlap(self, outcome: Outcome) -> float | None:
        """The IoU of the answered box and the unpruned model's: 0 without a box, None if the unpruned model answers no
        box."""
        if self.unpruned.box is None:
            return None
        return iou(outcome.box, self.unpruned.box) if outcome.box else 0.0

    def verdict(self, outcome: Outcome) -> str:
        """Say in a few words whether the answer is right or, if that is unknown, how close it is to the unpruned
        model's."""
        overlap, suffix = (outcome.iou, "") if outcome.iou is not None else (self.overlap(outcome), " with unpruned")
        if outcome.iou is None and outcome.answer == self.unpruned.answer:
            return "" if outcome is self.unpruned else "as unpruned ✓"
        if overlap is None:
            return "not as unpruned ✗"
        return f"IoU {overlap:.2f}{suffix} {'✓' if overlap >= HIT else '✗'}" if outcome.box else "no box ✗"

    def only(self, setups: Sequence[Setup]) -> Explanation:
        """The same with the unpruned model and some of the others."""
        keys = {setup.key for setup in setups}
        chosen = [outcome for outcome in self.outcomes[1:] if outcome.setup.key in keys]
        return replace(self, outcomes=[self.unpruned, *chosen])
