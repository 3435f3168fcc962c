"""Compare a pruned policy's actions with the unpruned policy's on the same observations: open loop, no robot moves."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from tokenprune.evals.actions.observation import Observation
from tokenprune.evals.actions.policy import action_width, actions_of, prepare
from tokenprune.evals.run.setups import Pruned
from tokenprune.evals.stats.intervals import Interval, interval_of_ratios


@dataclass(frozen=True)
class ActionError:
    """One strategy on all observations.

    mean: the absolute difference of actions, averaged over the numbers of an action, the actions of a chunk and the
        observations, with its 95 % interval, None for a single episode; observations of one episode are resampled
        together. In the policy's normalised units: standard deviations of the training data.
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
    errors: list[list[torch.Tensor]] = [[] for _ in setups]
    facts: list[list[tuple[float, int, int, float]]] = [[] for _ in setups]
    times, noise = [], []
    for number, observation in enumerate(progress(observations)):
        inputs = prepare(policy, processor, observation)
        start = time.perf_counter()
        unpruned = actions_of(policy, inputs, seed + number)[:, :width]
        times.append(time.perf_counter() - start)
        noise.append(float((actions_of(policy, inputs, ~(seed + number) % 2**31)[:, :width] - unpruned).abs().mean()))
        for setup, found, known in zip(setups, errors, facts, strict=True):
            with setup.patched(policy) as handle:
                start = time.perf_counter()
                pruned = actions_of(policy, inputs, seed + number)[:, :width]
                seconds, report = time.perf_counter() - start, handle.report
            found.append((pruned - unpruned).abs())
            last = sum(len(image.stages[-1].kept if image.stages else image.kept) for image in report.images)
            done = report.denoising
            known.append((seconds, report.n_visual, last, done.kv_bytes_read / done.kv_bytes_unpruned))
    episodes = [observation.episode for observation in observations]
    return [
        _summary(setup, found, known, times, noise, episodes)
        for setup, found, known in zip(setups, errors, facts, strict=True)
    ]


def _summary(
    setup: Pruned,
    errors: Sequence[torch.Tensor],
    facts: Sequence[tuple[float, int, int, float]],
    times: Sequence[float],
    noise: Sequence[float],
    episodes: Sequence[int],
) -> ActionError:
    means = [float(error.mean()) for error in errors]
    seconds, visual, kept, read = zip(*facts, strict=True)
    bounds = interval_of_ratios([(means, [1.0] * len(means), 1.0)], episodes)
    return ActionError(
        setup.label,
        setup.position_ids,
        setup.keep_ratio,
        len(errors),
        sum(means) / len(means),
        bounds if isfinite(bounds[0]) else None,
        float(torch.stack([error[0].mean() for error in errors]).mean()),
        float(torch.stack([error.max() for error in errors]).max()),
        sum(noise) / len(noise),
        float(torch.tensor(seconds).median()),
        float(torch.tensor(times).median()),
        visual[0],
        kept[0],
        sum(read) / len(read),
    )
