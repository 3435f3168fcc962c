"""What an evaluation needs from an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tokenprune.errors import TokenPruneError
from tokenprune.evals.run.setups import Pruned, Setup
from tokenprune.serving.vllm.settings import Settings


class EngineError(TokenPruneError, RuntimeError):
    """An engine that answers with an error, or not with what was asked for."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A question after its images.

    chat: the prompt in the model's own template. special_tokens: whether the tokenizer adds special tokens to it.
    """

    images: Sequence[Image.Image]
    question: str
    chat: str
    max_new_tokens: int
    special_tokens: bool = True


@dataclass(frozen=True)
class Reply:
    """An answer, and how many tokens its prompt had after pruning."""

    text: str
    n_prompt: int


@dataclass(frozen=True)
class Facts:
    """What a run records of an engine.

    version: vLLM's. architecture, dtype, device: "unknown" for a server that `tokenprune serve` did not start.
    generation: see `generation_identity`; None for a server that does not report it.
    """

    version: str
    architecture: str
    dtype: str
    device: str
    generation: Mapping[str, Any] | None = None


class Engine(ABC):
    """An engine, or a way to start one for each setup that needs its own."""

    #: How many questions are asked at once.
    at_once: int
    #: Whether it can prune with every strategy, because it is started anew for each.
    any_strategy: bool

    @property
    def settings(self) -> Settings | None:
        """Its pruning settings; None if unknown, or if it can be started with any."""
        return None

    @abstractmethod
    def groups(self, setups: Sequence[Setup]) -> list[list[Setup]]:
        """Group setups by the engine they need. Raises a TokenPruneError for one that this engine cannot run."""

    @abstractmethod
    @contextmanager
    def serving(self, group: Sequence[Setup]) -> Iterator[None]:
        """Answer for the setups of a group inside a `with` block."""

    @abstractmethod
    def facts(self) -> Facts:
        """Describe the engine; inside `serving`."""

    @abstractmethod
    def ask(self, prompts: Sequence[Prompt], setup: Setup) -> list[Reply | Exception]:
        """Answer all prompts greedily, as many at once as the engine takes. A failed prompt has its error in its
        place."""


def request_ratio(setup: Setup, own: Settings) -> float | None:
    """Return the keep ratio that a request must set, None if the engine's own is right. A request's ratio of 1 turns
    pruning off, so only an engine started with a ratio of 1 measures PixelPrune at 1."""
    if not isinstance(setup, Pruned):
        return None if own.strategy_at(None) is None else 1.0
    return None if setup.keep_ratio == own.strategy.keep_ratio else setup.keep_ratio


def settings_of(setup: Setup) -> dict[str, Any]:
    """Return what distinguishes the engines that setups need: everything but the budget, which requests set. A
    `Compose`'s budget is its last step's, too."""
    settings = _without_budget(setup.settings())
    if "steps" in settings:
        *steps, last = settings["steps"]
        settings["steps"] = [*steps, _without_budget(last)]
    return settings


def _without_budget(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in ("keep_ratio", "keep")}
