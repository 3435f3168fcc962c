"""Late-step pruning in diffusion models (https://arxiv.org/abs/2511.15098)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenprune.checks import check_layer, is_integer
from tokenprune.errors import SettingError
from tokenprune.strategy import DenoisingStage, Record, Stage, StagedStrategy


@dataclass(frozen=True)
class LateStep(StagedStrategy):
    """Caches every visual token, and from denoising step `steps` of each canvas on reads only the tokens that the
    canvas attended to most in the step before.

    keep_ratio, keep: the budget from the last of `steps` on.
    steps: the step, counted from 0 and at least 1, from which fewer tokens are read; or several, at each of which the
        same share of the remaining tokens is kept.
    layer: the layer of the denoiser whose attention counts, averaged over heads and canvas positions; None is the last
        one. It must attend to the whole prompt.

    Needs a model that denoises blocks of text from a cache (DiffusionGemma), so it has no registered name. Such a model
    computes visual tokens once per prompt: late steps save reading their keys and values. Unlike in the paper's models,
    they do not save computing visual tokens in every step.

    Deviations: the paper applies other methods' rankings from a step on; this one ranks by the canvas's attention. The
    released FastV for LLaDA-V averages heads before the softmax, sums over the queries of the prompt too, and reads the
    third layer of the 48th step.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "in block diffusion models, the tokens that the canvas attended to most, from a given denoising step on; "
            "the paper prunes late by the rankings of other methods, such as FastV"
        ),
        source="our own",
        published={"steps": 8},
    )

    needs: ClassVar[frozenset[str]] = frozenset({"canvas_attention"})
    all_enter: ClassVar[bool] = True

    steps: int | tuple[int, ...] | list[int] = 8
    layer: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.steps, list):  # settings files have lists
            object.__setattr__(self, "steps", tuple(self.steps))
        numbers = self.steps if isinstance(self.steps, tuple) else (self.steps,)
        whole = all(is_integer(n) and n >= 1 for n in numbers)
        if not numbers or not whole or list(numbers) != sorted(set(numbers)):
            raise SettingError(
                f"LateStep: steps={self.steps!r} does not name ascending denoising steps from 1 on; step 0 "
                f"has no step before it. Write steps=8, or steps=(8, 16, 24)."
            )
        if len(numbers) > 1 and self.keep is not None:
            raise SettingError("LateStep: several steps need a ratio, not a count. Use keep_ratio.")
        check_layer("LateStep", self.layer, "a layer", -1)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return ()

    @property
    def canvas_layer(self) -> int | None:
        return self.layer

    @property
    def step_stages(self) -> tuple[DenoisingStage, ...]:
        steps = (self.steps,) if isinstance(self.steps, int) else tuple(self.steps)
        if self.keep_ratio is None:
            return (DenoisingStage(steps[0], keep=self.keep),)
        shares = [self.keep_ratio ** ((i + 1) / len(steps)) for i in range(len(steps))]
        return tuple(DenoisingStage(step, share) for step, share in zip(steps, shares, strict=True))
