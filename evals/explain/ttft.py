"""Time to first token of several setups on one prompt, measured in turn within one process."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from tokenprune.evals.run.setups import Setup, Unpruned


@torch.inference_mode()
def ttft_ratios(model: Any, inputs: Any, compared: Sequence[Setup], rounds: int) -> list[float]:
    """Return the time to first token of each setup, as a ratio to that of the unpruned model.

    Every round measures all of them and the unpruned model, and the ratios are medians of those within a round: what
    else the machine does hits all alike. Every second round goes backwards. Call each of them once before: a first call
    allocates.
    """
    calls = [Unpruned(), *compared]
    ratios: list[list[float]] = [[] for _ in compared]
    for turn in range(rounds):
        numbers = range(len(calls)) if turn % 2 == 0 else range(len(calls) - 1, -1, -1)
        seconds = dict(sorted((number, _ttft(model, inputs, calls[number])) for number in numbers))
        for number, found in enumerate(ratios, start=1):
            found.append(seconds[number] / seconds[0])
    return [statistics.median(found) for found in ratios]


def _ttft(model: Any, inputs: Any, setup: Setup) -> float:
    with setup.patched(model):
        start = time.perf_counter()
        model.generate(**inputs, do_sample=False, max_new_tokens=1)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start
