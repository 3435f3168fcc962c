"""Seconds between moments that have names; on a GPU, as its stream comes to them."""

import time
from typing import Any

import torch


class Stopwatch:
    """Moments by name, and the seconds between any two. A name that comes again is the later moment.

    On a GPU a moment is an event in its stream: nothing waits for it but the first mark, and `between`.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._moments: dict[str, Any] = {}
        self._synchronise()

    def mark(self, name: str) -> None:
        if not self._cuda:
            self._moments[name] = time.perf_counter()
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._moments[name] = event

    def between(self, first: str, last: str) -> float:
        start, end = self._moments[first], self._moments[last]
        if not self._cuda:
            return end - start
        self._synchronise()
        return start.elapsed_time(end) / 1e3

    def _synchronise(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()
