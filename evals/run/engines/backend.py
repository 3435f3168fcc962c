"""An engine as the backend of a run: vLLM in this process, or a server behind a URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tokenprune.adapters import ModelAdapter
from tokenprune.errors import SettingError
from tokenprune.evals.defaults import DEFAULT_KEEP_RATIOS, DEFAULT_STRATEGIES, POSITION_IDS
from tokenprune.evals.models.loading import load_processor, public_name
from tokenprune.evals.run.backend import Backend, without_downsampling
from tokenprune.evals.run.engines.engine import Engine
from tokenprune.evals.run.engines.offline import Offline
from tokenprune.evals.run.engines.runner import EngineRunner
from tokenprune.evals.run.engines.server import Server
from tokenprune.evals.run.plan import Part
from tokenprune.evals.run.settings import OnError
from tokenprune.evals.run.setups import UNPRUNED, Setup, possible
from tokenprune.evals.storage.answers import Answer
from tokenprune.evals.storage.provenance import config_digest, processor_digest, versions
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.video import VideoQuestion
from tokenprune.serving.vllm.architectures.releases import check_release
from tokenprune.serving.vllm.startup.refusals import NOT_INSTALLED
from tokenprune.strategy import Strategy


@dataclass(frozen=True)
class EngineBackend(Backend):
    """An engine that runs the model `name`; tokens are counted here, by the model's config and processor."""

    engine: Engine
    name: str
    config: Any
    processor: Any
    on_error: OnError

    @property
    def keep_ratios(self) -> Sequence[float]:
        settings = self.engine.settings
        ratio = None if settings is None else settings.strategy.keep_ratio
        return DEFAULT_KEEP_RATIOS if ratio is None else [ratio]

    @property
    def position_ids(self) -> Sequence[str]:
        settings = self.engine.settings
        if settings is None:
            return POSITION_IDS
        return [settings.position_ids or settings.strategy.default_position_ids]

    def strategies(self, adapter: type[ModelAdapter] | None, say: Callable[[str], None]) -> Sequence[str | Strategy]:
        settings = self.engine.settings
        if settings is not None:
            return [settings.strategy]
        return possible(DEFAULT_STRATEGIES, lambda setup: self.engine.groups([setup]), say)

    def baselines(self, say: Callable[[str], None]) -> Sequence[str]:
        if self.engine.any_strategy:
            return without_downsampling("an engine resizes images itself", say)
        say(f"Leaving out all baselines but {UNPRUNED}: a server prunes with one strategy")
        return [UNPRUNED]

    def groups(self, setups: Sequence[Setup]) -> list[list[Setup]]:
        return self.engine.groups(setups)

    def serving(self, group: Sequence[Setup]) -> AbstractContextManager[None]:
        return self.engine.serving(group)

    def identity(self) -> dict[str, Any]:
        """An engine's weights cannot be read, so the model's name identifies them. Its kernels follow from its options
        and vLLM's version."""
        facts = self.engine.facts()
        model = {
            "class": facts.architecture,
            "weights": self.name,
            "dtype": facts.dtype,
            "device": facts.device,
            "config": config_digest(self.config),
            **({} if facts.generation is None else {"generation": dict(facts.generation)}),
            "processor": processor_digest(self.processor),
        }
        return {"model": model, "versions": {**versions(), "vllm": facts.version}}

    def ask(self, parts: Sequence[Part], group: Sequence[Setup]) -> Iterator[list[Answer]]:
        runner = EngineRunner(self.engine, self.processor, self.config.image_token_id, self.on_error)
        yield from runner.ask(parts, group)


def check_for_engine(
    questions: Sequence[Question], image_size: tuple[int, int] | None, pad: bool, device_map: str | None
) -> None:
    """Raise SettingError for what only the model in this process can do."""
    if image_size is not None:
        raise SettingError("an engine resizes images itself: leave out --image-size")
    if pad:
        raise SettingError("an engine prepares images itself: leave out pad (--pad)")
    if device_map is not None:
        raise SettingError(
            "device_map (--device-map) spreads a model in this process: leave it out. For vLLM on several "
            """devices, write --engine-options '{"tensor_parallel_size": 2}'"""
        )
    if videos := [question.id for question in questions if isinstance(question, VideoQuestion)]:
        raise SettingError(f"{videos[0]} is about a video, but engines get questions about images only")


def engine_backend(
    engine: str, model: str | tuple[Any, Any], dtype: str, options: Mapping[str, Any], on_error: OnError
) -> EngineBackend:
    """Return the backend for "vllm", with these options, or for the server at a URL. SettingError for anything else."""
    if not isinstance(model, str):
        raise SettingError("an engine loads the model itself: give evaluate() its name or folder")
    config, processor = load_processor(model)
    if engine == "vllm":
        offline = Offline(model, dtype, options)
        if find_spec("vllm") is None:
            raise SettingError(NOT_INSTALLED)
        check_release(offline.architecture)
        return EngineBackend(offline, public_name(model), config, processor, on_error)
    if not engine.startswith(("http://", "https://")):
        raise SettingError(f"engine {engine!r}: write vllm, or the URL of a server, http://localhost:8000")
    if options:
        raise SettingError("a running server already has its options: leave out engine_options (--engine-options)")
    if dtype != "auto":
        raise SettingError("a running server already has its data type: leave out dtype (--dtype)")
    return EngineBackend(Server(engine, model), public_name(model), config, processor, on_error)
