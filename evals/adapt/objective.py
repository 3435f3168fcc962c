"""A training's objective: which answers the model learns, and how it is pruned meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from peft import PeftModel
from torch import nn

from tokenprune.errors import SettingError
from tokenprune.evals.adapt.loss import answer_loss
from tokenprune.evals.adapt.shrinking import Shrinking, applied
from tokenprune.evals.adapt.teaching import Distributions
from tokenprune.strategy import Strategy


@dataclass(frozen=True)
class Ratios:
    """Keep ratios for the steps of a training: a share `whole` of the steps is unpruned, and the others are spread over
    `lowest` to `highest`, each octave alike. A step's ratio depends on its number alone, so that a resumed training
    draws the same."""

    lowest: float
    highest: float
    whole: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.highest <= 1:
            raise SettingError(
                f"keep ratios {self.lowest:g} to {self.highest:g}: write the lower first, both above 0 and up to 1."
            )
        if not 0 <= self.whole < 1:
            raise SettingError(f"a share of {self.whole:g} unpruned steps is not in [0, 1); write 0.25, for example.")

    @property
    def middle(self) -> float:
        """The median ratio of the pruned steps."""
        return math.sqrt(self.lowest * self.highest)

    def at(self, step: int) -> float:
        draw = np.random.default_rng([self.seed, step])
        if draw.random() < self.whole:
            return 1.0
        return float(self.lowest * (self.highest / self.lowest) ** draw.random())


@dataclass(frozen=True)
class Objective:
    """strategy, ratios: how the model is pruned, or its images are shrunk.

    labels: whether it learns the batches' answers, and not their distributions in the unpruned model.
    head: see `tokenprune.evals.adapt.logits.output_layer`.
    """

    strategy: Strategy | Shrinking
    ratios: Ratios
    labels: bool
    head: nn.Module | None

    @contextmanager
    def applied_to(self, model: PeftModel, ratio: float, targets: Distributions | None) -> Iterator[None]:
        """Within the block, the model is pruned, unless `ratio` is 1, and its loss is the objective's. targets: the
        teacher's distributions at the labels; None with `labels`."""
        with ExitStack() as step:
            step.enter_context(answer_loss(model, self.head, targets))
            if ratio < 1:
                step.enter_context(applied(model, self.strategy, ratio))
            yield
