"""The inputs of each training step, drawn with the step's own seed, in this process or ahead of it in several
others."""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch

from tokenprune.evals.dev.train.batches.pack import TEXT_LENGTH, Batch, Packer
from tokenprune.evals.dev.train.batches.patches import Patches, PatchTruth
from tokenprune.evals.dev.train.scenes.assets import Assets, load_assets
from tokenprune.evals.dev.train.scenes.draw import Scene, draw_scene
from tokenprune.evals.dev.train.scenes.grids import choose_grid, images_of
from tokenprune.evals.dev.train.start.model import build_processor

Fed = TypeVar("Fed")
SMALL = 160  # patches


@dataclass(frozen=True)
class Feed:
    """`tokens` is the approximate number of tokens per step."""

    sources: Path
    seed: int
    tokens: int

    @cached_property
    def assets(self) -> Assets:
        return load_assets(self.sources, held_out_things=False, held_out_backgrounds=False)

    @cached_property
    def packer(self) -> Packer:
        return Packer(build_processor())


@dataclass(frozen=True)
class PatchFeed(Feed):
    """Scenes of up to `most_patches` patches and `most_things` things, and the truth about their patches.

    Most grids are small, because a step then sees more things.
    """

    most_patches: int
    most_things: int

    @cached_property
    def truth(self) -> PatchTruth:
        return PatchTruth(self.packer)

    def __call__(self, step: int) -> tuple[list[Scene], Patches]:
        rng = random.Random(f"{self.seed} patches {step}")
        grid = choose_grid(rng, SMALL if rng.random() < 0.6 else self.most_patches)
        number = images_of(grid, self.tokens, most=48)
        scenes = [draw_scene(rng, self.assets, grid, self.most_things) for _ in range(number)]
        return scenes, self.truth(scenes)


@dataclass(frozen=True)
class AnswerFeed(Feed):
    """New scenes, the share `fresh` of those that a step needs. If that is all of them, also their packed questions.

    Scenes have one thing at first, and up to `most_things` from step `all_at` on. Before that, grids are small, since
    these are cheap.
    """

    most_things: int
    all_at: int
    fresh: float

    def most(self, step: int) -> int:
        return 1 + min(self.most_things - 1, step * self.most_things // self.all_at)

    def number(self, grid: tuple[int, int]) -> int:
        return images_of(grid, self.tokens, TEXT_LENGTH)

    def __call__(self, step: int) -> tuple[list[Scene], Batch | None]:
        rng = random.Random(f"{self.seed} answers {step}")
        grid = choose_grid(rng, 256 if step < self.all_at else 576)
        drawn = max(1, round(self.fresh * self.number(grid)))
        scenes = [draw_scene(rng, self.assets, grid, self.most(step)) for _ in range(drawn)]
        return scenes, self.packer.pack(rng, scenes) if self.fresh >= 1 else None


def feed(make: Callable[[int], Fed], steps: Sequence[int], workers: int) -> Iterator[Fed]:
    """Yield `make(step)` for each step in turn. With workers, that many processes compute steps ahead."""
    if not workers:
        yield from map(make, steps)
        return
    context = get_context("spawn")  # forking a process that uses a GPU would be unsafe
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        ahead: deque[Future[bytes]] = deque()
        for step in steps:
            ahead.append(executor.submit(_pickled, make, step))
            if len(ahead) > 3 * workers:
                yield pickle.loads(ahead.popleft().result())
        while ahead:
            yield pickle.loads(ahead.popleft().result())


def _pickled(make: Callable[[int], object], step: int) -> bytes:
    """Return bytes, because every tensor sent to another process as such needs an open file."""
    key = type(make).__name__
    held = _HELD.setdefault(key, make)  # the first one, which has its images loaded
    return pickle.dumps(held(step))  # type: ignore[operator]


_HELD: dict[str, Callable[[int], object]] = {}
