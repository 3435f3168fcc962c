"""Memory and time of a training, measured on its largest step before it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tokenprune.evals.adapt.lora import n_trained
from tokenprune.evals.adapt.loss import learning
from tokenprune.evals.adapt.rows import on_device
from tokenprune.evals.adapt.teaching import teacher_distributions
from tokenprune.evals.bench.inputs.build import free_bytes
from tokenprune.evals.bench.timing.memory import with_peak

#: Bytes for each trained weight in float32: gradient and both moments of AdamW.
OPTIMISER_BYTES = 3 * 4


@dataclass(frozen=True)
class Estimate:
    """n_trained, n_weights: how many weights are trained, and how many there are. peak: bytes that training needs in
    addition to the model's weights. free: bytes free on the device. seconds: of an unpruned step, the slowest kind."""

    n_trained: int
    n_weights: int
    peak: int
    free: int
    seconds: float

    def sentence(self, steps: int) -> str:
        """What a user should know before it starts."""
        text = (
            f"Training {self.n_trained / 1e6:.2f} million of {self.n_weights / 1e6:.1f} million weights: about "
            f"{self.peak / 1e9:.2f} GB in addition to the model ({self.free / 1e9:.1f} GB free), and at most about "
            f"{duration(steps * self.seconds)} for {steps} steps."
        )
        if self.peak > self.free:
            text += " That does not fit: lower --batch and raise --accumulate."
        return text


def estimate(
    model: Any,
    batch: Mapping[str, Any],
    accumulate: int,
    *,
    head: nn.Module | None = None,
    labels: bool = True,
    autocast: bool = False,
) -> Estimate:
    """Run two unpruned steps without an update: one for memory, one for time. Weights and random numbers stay as they
    are. head, labels, autocast: see `PrunedTrainer` and `arguments` in `tokenprune.evals.adapt.training`."""
    device = next(model.parameters()).device
    free = free_bytes(device)
    given = on_device(batch, model)
    states = torch.get_rng_state(), torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    was_training = model.training
    model.train()
    _, peak = with_peak(lambda: _step(model, given, head, labels, autocast), device)
    start = time.perf_counter()
    _step(model, given, head, labels, autocast)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])
    trained = n_trained(model)
    n_weights = sum(weight.numel() for weight in model.parameters())
    return Estimate(trained, n_weights, peak + OPTIMISER_BYTES * trained, free, accumulate * seconds)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _step(model: Any, batch: Mapping[str, Any], head: nn.Module | None, labels: bool, autocast: bool) -> None:
    model.zero_grad(set_to_none=True)
    taught = None if labels else teacher_distributions(model, batch, head)
    with (
        torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=autocast),
        learning(model, head, taught),
    ):
        loss = model(**batch).loss
    loss.backward()
