"""Prometheus counters of pruning, on vLLM's own /metrics, and a file of the kept indices.

Tokens are counted in the API server, which makes the placeholders; a cached image counts again. The time of selection
is spent in the workers; each sums it in a file of its own, which the API server reads on request. On a GPU, it is the
CPU's time, which includes waiting for the GPU, perhaps for the vision tower.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int
from prometheus_client import REGISTRY, Counter
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from torch import Tensor

logger = logging.getLogger("vllm.tokenprune")

#: The environment variable that names the folder of all processes' files.
FOLDER = "TOKENPRUNE_SELECTION_TIMES"
#: How many images may wait to be encoded. Cached ones never are, so the oldest are forgotten.
MOST_WAITING = 4096

SEEN = Counter("tokenprune_visual_tokens", "Visual tokens of images and videos in requests, before pruning")
KEPT = Counter("tokenprune_kept_visual_tokens", "Visual tokens of images and videos in requests, after pruning")


def count_image(n_visual: int, n_kept: int) -> None:
    """Count one image or video of one request."""
    SEEN.inc(n_visual)
    KEPT.inc(n_kept)


class SelectionTimes(Collector):
    """Collects what every `SelectionClock` of this process and its workers has written.

    The workers get the folder in an environment variable. In the model's config, which they also get, it would change
    the key in vLLM's cache of compiled models at every start.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def share_folder(self) -> None:
        """Make a folder for the workers that will start, unless there is one. It is deleted when this process ends."""
        if not Path(os.environ.get(FOLDER, "no folder")).is_dir():
            self._folder = tempfile.TemporaryDirectory(prefix="tokenprune-")
            os.environ[FOLDER] = self._folder.name

    def collect(self) -> Iterator[CounterMetricFamily]:
        folder = os.environ.get(FOLDER)
        files = [] if folder is None else Path(folder).glob("*.f64")
        totals = sum(map(np.fromfile, files), np.zeros(2))
        yield CounterMetricFamily("tokenprune_selection_seconds", "Time spent selecting visual tokens", totals[0])
        yield CounterMetricFamily("tokenprune_selected_images", "Images that were selected from", totals[1])


SELECTION_TIMES = SelectionTimes()
REGISTRY.register(SELECTION_TIMES)


class SelectionClock:
    """Sums this process's seconds and images in a file of its own in the shared folder."""

    def __init__(self) -> None:
        SELECTION_TIMES.share_folder()
        path = Path(os.environ[FOLDER]) / f"{os.getpid()}-{id(self)}.f64"
        self._totals = np.memmap(path, dtype=np.float64, mode="w+", shape=(2,))

    @contextmanager
    def one_image(self) -> Iterator[None]:
        """Time the block, without waiting for a GPU."""
        start = time.perf_counter()
        yield
        self._totals += (time.perf_counter() - start, 1)


class KeptFile:
    """A file with one JSON line per encoded image or video: its name in vLLM's caches, which starts with its `uuid` if
    its request gives it one and has no `mm_processor_kwargs`, the number of its visual tokens, and the indices of the
    kept ones."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        self._names: dict[int, str] = {}
        self._failed = False

    def name(self, key: int, name: str) -> None:
        """Note the name of an image that will be encoded unless it is cached. `key` is that of its `PrunedItem`."""
        self._names[key] = name
        if len(self._names) > MOST_WAITING:
            del self._names[next(iter(self._names))]

    def write(self, key: int, n_visual: int, kept: Int[Tensor, " kept"]) -> None:
        """Append the line of an image, unless it has no name: vLLM makes up images to measure memory. Lines that cannot
        be written are lost, with one warning."""
        if (name := self._names.pop(key, None)) is None:
            return
        line = json.dumps({"image": name, "n_visual": n_visual, "kept": kept.tolist()})
        try:
            with self._path.open("a") as file:
                file.write(line + "\n")
        except OSError as error:  # such as a full disk, which would end the engine and everyone's requests
            if not self._failed:
                logger.warning("Kept indices of images are lost: --record %s cannot be written: %s", self._path, error)
            self._failed = True
