"""What answers the questions of a run: the model in this process, or an engine (see `engines`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from tokenprune.adapters import ModelAdapter
from tokenprune.errors import UnsupportedError
from tokenprune.evals.defaults import DEFAULT_KEEP_RATIOS, DEFAULT_STRATEGIES, POSITION_IDS
from tokenprune.evals.models.overrides import in_evaluation_mode
from tokenprune.evals.models.video_prompts import takes_videos
from tokenprune.evals.run import downsample
from tokenprune.evals.run.plan import Part
from tokenprune.evals.run.runner import Runner
from tokenprune.evals.run.settings import OnError
from tokenprune.evals.run.setups import BASELINES, DOWNSAMPLE, Setup, possible
from tokenprune.evals.storage.answers import Answer
from tokenprune.evals.storage.provenance import answering_identity, versions
from tokenprune.strategy import Strategy


class Backend(ABC):
    """Answers the questions of a run."""

    @property
    def keep_ratios(self) -> Sequence[float]:
        """The keep ratios to compare if none is named."""
        return DEFAULT_KEEP_RATIOS

    @property
    def position_ids(self) -> Sequence[str]:
        """The kinds of position IDs to compare if none is named."""
        return POSITION_IDS

    @abstractmethod
    def strategies(self, adapter: type[ModelAdapter] | None, say: Callable[[str], None]) -> Sequence[str | Strategy]:
        """Return the strategies to compare if none is named; say which default ones cannot be run.

        adapter: how the model is read, as in `patch`.
        """

    @abstractmethod
    def baselines(self, say: Callable[[str], None]) -> Sequence[str]:
        """Return the baselines that can be run; say which cannot."""

    @abstractmethod
    def groups(self, setups: Sequence[Setup]) -> list[list[Setup]]:
        """Sort setups into groups, to be run one after the other. Raises setup errors that would otherwise come an hour
        into the run."""

    @abstractmethod
    def serving(self, group: Sequence[Setup]) -> AbstractContextManager[None]:
        """Prepare for the setups of a group inside a `with` block."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return `model` and `versions` of the run's identity; inside `serving`."""

    @abstractmethod
    def ask(self, parts: Sequence[Part], group: Sequence[Setup]) -> Iterator[list[Answer]]:
        """Yield the missing answers of all parts, a few at a time; inside `serving`."""


@dataclass(frozen=True)
class InProcessBackend(Backend):
    """The model in this process. batch_tokens, on_error: see `Runner`. resized: whether images have another size than
    the vision tower was made for."""

    model: Any
    processor: Any
    batch_tokens: int
    on_error: OnError
    resized: bool = False

    def strategies(self, adapter: type[ModelAdapter] | None, say: Callable[[str], None]) -> Sequence[str]:
        return possible(DEFAULT_STRATEGIES, lambda setup: self._check(replace(setup, adapter=adapter)), say)

    def baselines(self, say: Callable[[str], None]) -> Sequence[str]:
        try:
            downsample.full_grid(self.processor)
            with downsample.any_resolution(self.model):
                pass
        except UnsupportedError as error:
            return without_downsampling(str(error), say)
        if takes_videos(self.processor):
            return without_downsampling("it resizes images, and this model takes videos too", say)
        return BASELINES

    def groups(self, setups: Sequence[Setup]) -> list[list[Setup]]:
        for setup in setups:
            self._check(setup)
        return [list(setups)]

    @contextmanager
    def serving(self, group: Sequence[Setup]) -> Iterator[None]:
        with in_evaluation_mode(self.model), downsample.any_resolution(self.model) if self.resized else nullcontext():
            yield

    def identity(self) -> dict[str, Any]:
        return {"model": answering_identity(self.model, self.processor), "versions": versions()}

    def ask(self, parts: Sequence[Part], group: Sequence[Setup]) -> Iterator[list[Answer]]:
        runner = Runner(self.model, self.processor, group, self.batch_tokens, self.on_error, warms_up=True)
        for part in parts:
            yield from runner.ask(part)

    def _check(self, setup: Setup) -> None:
        with setup.patched(self.model):
            setup.processor_options(self.processor)


def without_downsampling(reason: str, say: Callable[[str], None]) -> Sequence[str]:
    """Return the other baselines, and say why this one is missing."""
    say(f"Leaving out the baseline {DOWNSAMPLE}: {reason.removesuffix(f'; {downsample.LEAVE_OUT}')}")
    return [name for name in BASELINES if name != DOWNSAMPLE]
