"""Compare a pruned policy's actions with the unpruned policy's on the same observations: open loop, no robot moves."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.evals.actions.observation import Observation
from tokenprune.evals.actions.policy import action_width, actions_of, prepare
from tokenprune.evals.run.setups import Pruned
from tokenprune.evals.stats import Interval, interval_of_ratios


@dataclass(frozen=True)
class ActionError:
    """One strategy on all observations.

    mean: the absolute difference of actions, averaged over the numbers of an action, the actions of a chunk and the
        observations, with its 95 % interval, None for a single episode; observations of one episode are resampled
        together. In the policy's normalised units: standard deviations of the training data or, if the policy has
        quantiles, half the distance between its 1st and 99th percentile.
    first: the same of the first action of each chunk, which a robot executes first.
    worst: the largest difference in any number of any action.
    other_noise: the mean that another draw of the noise makes in the unpruned policy, for comparison.
    seconds, unpruned_seconds: the median time of a call.
    visual, kept: visual tokens of an observation, and how many of them are left in the last layer.
    kv_read: the keys and values that the steps read, as a share of the unpruned policy's.
    """

    label: str
    position_ids: str
    keep_ratio: float
    n: int
    mean: float
    interval: Interval | None
    first: float
    worst: float
    other_noise: float
    seconds: float
    unpruned_seconds: float
    visual: int
    kept: int
    kv_read: float


@dataclass(frozen=True, eq=False)
class _Measured:
    """One strategy on one observation. error: of every number of the chunk's actions. Other fields as in
    ActionError."""

    error: Float[Tensor, "steps width"]
    seconds: float
    visual: int
    kept: int
    kv_read: float


def compare(
    policy: Any,
    processor: Any,
    observations: Sequence[Observation],
    setups: Sequence[Pruned],
    seed: int = 0,
    progress: Callable[[Sequence[Observation]], Iterator[Observation]] = iter,
) -> list[ActionError]:
    """Ask for actions on every observation, unpruned and with every setup, from the same noise."""
    width = action_width(policy, processor)
    measured: list[list[_Measured]] = [[] for _ in setups]
    times, noise = [], []
    actions_of(policy, prepare(policy, processor, observations[0]), seed)  # a first call allocates
    for own_seed, observation in enumerate(progress(observations), seed):
        inputs = prepare(policy, processor, observation)
        start = time.perf_counter()
        unpruned = actions_of(policy, inputs, own_seed)[:, :width]
        times.append(time.perf_counter() - start)
        other = actions_of(policy, inputs, ~own_seed % 2**31)[:, :width]
        noise.append(float((other - unpruned).abs().mean()))
        for setup, runs in zip(setups, measured, strict=True):
            runs.append(_measure(setup, policy, inputs, own_seed, unpruned))
    episodes = [observation.episode for observation in observations]
    return [_summary(setup, runs, times, noise, episodes) for setup, runs in zip(setups, measured, strict=True)]


def _measure(
    setup: Pruned, policy: Any, inputs: dict[str, Any], seed: int, unpruned: Float[Tensor, "steps width"]
) -> _Measured:
    with setup.patched(policy) as handle:
        start = time.perf_counter()
        pruned = actions_of(policy, inputs, seed)[:, : unpruned.shape[1]]
        seconds, report = time.perf_counter() - start, handle.report
    kept = sum(len(image.stages[-1].kept if image.stages else image.kept) for image in report.images)
    kv_read = report.denoising.kv_bytes_read / report.denoising.kv_bytes_unpruned
    return _Measured((pruned - unpruned).abs(), seconds, report.n_visual, kept, kv_read)


def _summary(
    setup: Pruned,
    measured: Sequence[_Measured],
    times: Sequence[float],
    noise: Sequence[float],
    episodes: Sequence[int],
) -> ActionError:
    n = len(measured)
    means = [float(run.error.mean()) for run in measured]
    bounds = interval_of_ratios([(means, [1.0] * n, 1.0)], episodes)
    return ActionError(
        label=setup.label,
        position_ids=setup.position_ids,
        keep_ratio=setup.keep_ratio,
        n=n,
        mean=sum(means) / n,
        interval=bounds if isfinite(bounds[0]) else None,
        first=float(torch.stack([run.error[0].mean() for run in measured]).mean()),
        worst=float(torch.stack([run.error.max() for run in measured]).max()),
        other_noise=sum(noise) / len(noise),
        seconds=float(torch.tensor([run.seconds for run in measured]).median()),
        unpruned_seconds=float(torch.tensor(times).median()),
        visual=measured[0].visual,
        kept=measured[0].kept,
        kv_read=sum(run.kv_read for run in measured) / n,
    )
