"""Memory and time of a training, measured on its largest step before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from tokenprune.evals.adapt.lora import n_trained
from tokenprune.evals.adapt.objective import Objective
from tokenprune.evals.adapt.rows import on_device
from tokenprune.evals.adapt.teaching import Distributions, teacher_distributions
from tokenprune.evals.bench.timing.memory import free_bytes, with_peak

T = TypeVar("T")
#: Bytes for each trained weight in float32: gradient and both moments of AdamW.
OPTIMISER_BYTES = 3 * 4


@dataclass(frozen=True)
class Estimate:
    """n_trained, n_weights: how many weights are trained, and how many there are. peak: bytes that training needs in
    addition to the model's weights. free: bytes free on the device. whole, pruned, teaching: seconds of an unpruned
    step, of one at the middle keep ratio, and of the teacher's pass over its rows."""

    n_trained: int
    n_weights: int
    peak: int
    free: int
    whole: float
    pruned: float
    teaching: float

    def sentence(self, steps: int, share: float, n_taught: int) -> str:
        """What a user should know before it starts. share: of unpruned steps. n_taught: the number of steps that ask
        the teacher."""
        seconds = steps * (share * self.whole + (1 - share) * self.pruned) + n_taught * self.teaching
        text = (
            f"Training {self.n_trained / 1e6:.2f} million of {self.n_weights / 1e6:.1f} million weights: about "
            f"{self.peak / 1e9:.2f} GB in addition to the model ({self.free / 1e9:.1f} GB free), and about "
            f"{duration(seconds)} for {steps} steps, or less: the largest images were timed."
        )
        if self.peak > self.free:
            text += " That does not fit: lower --batch and raise --accumulate."
        return text


def estimate(
    model: Any, batch: Mapping[str, Any], accumulate: int, objective: Objective, *, autocast: bool = False
) -> Estimate:
    """Run three steps without an update: an unpruned one for memory, then one of each kind for time. Weights and random
    numbers stay as they are. autocast: see `arguments` in `tokenprune.evals.adapt.training`."""
    device = next(model.parameters()).device
    free = free_bytes(device)
    given = on_device(batch, model)
    states = torch.get_rng_state(), torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    was_training = model.training
    model.train()

    def teach() -> Distributions | None:
        return None if objective.labels else teacher_distributions(model, given, objective.head)

    def step(ratio: float, targets: Distributions | None) -> None:
        model.zero_grad(set_to_none=True)
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=autocast),
            objective.applied_to(model, ratio, targets),
        ):
            loss = model(**given).loss
        loss.backward()

    _, peak = with_peak(lambda: step(1.0, teach()), device)
    teaching, targets = timed(teach, device)
    whole, _ = timed(lambda: step(1.0, targets), device)
    pruned, _ = timed(lambda: step(objective.ratios.middle, targets), device)
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])
    trained = n_trained(model)
    n_weights = sum(weight.numel() for weight in model.parameters())
    seconds = (accumulate * part for part in (whole, pruned, teaching))
    return Estimate(trained, n_weights, peak + OPTIMISER_BYTES * trained, free, *seconds)


def timed(run: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Return how many seconds a call takes, and its result. What was begun before it is not counted."""
    _finish(device)
    start = time.perf_counter()
    result = run()
    _finish(device)
    return time.perf_counter() - start, result


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
