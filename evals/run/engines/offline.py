"""vLLM in this process: one `LLM` at a time, for each strategy and kind of position IDs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.evals.models.loading import read_config
from tokenprune.evals.models.mistral_format import in_mistral_format
from tokenprune.evals.run.engines.engine import Engine, EngineError, Facts, Prompt, Reply, request_ratio, settings_of
from tokenprune.evals.run.setups import Pruned, Setup, Unpruned
from tokenprune.evals.storage.provenance import generation_identity
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.checkpoints import architecture_of
from tokenprune.serving.vllm.hf_overrides import overrides
from tokenprune.serving.vllm.settings import Settings
from tokenprune.strategies.baselines.grid import Grid

#: Arguments of `LLM` that are not engine options, and what determines them.
OWN = {"model": "--model", "dtype": "--dtype", "hf_overrides": "--strategy"}
#: Options for a checkpoint that also has Mistral's own format, which vLLM prefers: the prompts are for the other one.
HF_FORMAT = {"config_format": "hf", "load_format": "hf", "tokenizer_mode": "hf"}
#: Questions that vLLM schedules together; bounded because all their images are decoded at once.
AT_ONCE = 64
#: The settings of an engine that answers as without tokenprune.
UNPRUNED = Settings(Grid(keep_ratio=1.0))
#: Finish reasons of unanswered requests, for example because vLLM's caches have lost an image.
UNANSWERED = ("abort", "error")


class Offline(Engine):
    """Starts an `LLM` with a model for each group of setups.

    options: arguments of `LLM`; SettingError for the model, its dtype and `hf_overrides`, which are not among them.
    UnsupportedError for a model that cannot be pruned inside vLLM, or gets no images there.
    """

    at_once = AT_ONCE
    any_strategy = True

    def __init__(self, model: str, dtype: str, options: Mapping[str, Any]) -> None:
        for name in OWN.keys() & options.keys():
            raise SettingError(f"engine_options (--engine-options): {name!r} follows from {OWN[name]}. Leave it out.")
        self.model, self.dtype = model, dtype
        self.options = {**HF_FORMAT, **options} if in_mistral_format(model) else options
        self.config = read_config(model)
        self.architecture = ARCHITECTURES[architecture_of(self.config)]
        if not self.architecture.takes_images:
            raise UnsupportedError(
                f"vLLM takes only videos of models of type {self.architecture.model_type!r}, and engines are asked "
                "about images only. Leave out engine (--engine)."
            )
        self._llm: Any = None
        self._settings = UNPRUNED

    def groups(self, setups: Sequence[Setup]) -> list[list[Setup]]:
        """Group by strategy and kind of position IDs. Unpruned setups go to the first engine."""
        groups: dict[object, list[Setup]] = {}
        for setup in setups:
            if isinstance(setup, Pruned):
                overrides(self.config, Settings(setup.strategy, setup.position_ids))
                name = type(setup.strategy), repr(settings_of(setup)), setup.position_ids
                groups.setdefault(name, []).append(setup)
            elif not isinstance(setup, Unpruned):
                raise UnsupportedError(f"{setup.key}: vLLM does not run it. Leave out {setup.label}.")
        listed = list(groups.values()) or [[]]
        return [[*(setup for setup in setups if isinstance(setup, Unpruned)), *listed[0]], *listed[1:]]

    @contextmanager
    def serving(self, group: Sequence[Setup]) -> Iterator[None]:
        pruned = [setup for setup in group if isinstance(setup, Pruned)]
        most = max(pruned, key=lambda setup: setup.keep_ratio, default=None)  # a request's ratio of 1 turns pruning off
        settings = UNPRUNED if most is None else Settings(most.strategy, most.position_ids)
        options = {"hf_overrides": overrides(self.config, settings), **self.options}
        if settings.position_ids == "compact":  # which some architectures refuse
            options.setdefault("enable_prefix_caching", False)
        self._llm, self._settings = import_module("vllm").LLM(self.model, dtype=self.dtype, **options), settings
        try:
            yield
        finally:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def facts(self) -> Facts:
        config = self._llm.llm_engine.vllm_config
        model = config.model_config
        return Facts(
            version=import_module("vllm").__version__,
            architecture=model.hf_config.architectures[0],
            dtype=str(model.dtype).removeprefix("torch."),
            device=config.device_config.device_type,
            generation=generation_identity(model.try_get_generation_config()),
        )

    def ask(self, prompts: Sequence[Prompt], setup: Setup) -> list[Reply | Exception]:
        try:
            return self._generated(prompts, request_ratio(setup, self._settings))
        except Exception as error:  # noqa: BLE001  # raised again or recorded by whoever asks
            if len(prompts) == 1:
                return [error]
            return [reply for prompt in prompts for reply in self.ask([prompt], setup)]

    def _generated(self, prompts: Sequence[Prompt], keep_ratio: float | None) -> list[Reply | Exception]:
        inputs = [
            {
                "prompt": prompt.chat,
                "multi_modal_data": self.architecture.items(prompt.images),
                "mm_processor_kwargs": {} if keep_ratio is None else {"keep_ratio": keep_ratio},
            }
            for prompt in prompts
        ]
        greedy = [self._llm.get_default_sampling_params() for _ in prompts]  # the checkpoint's, as `generate` has them
        for sampling, prompt in zip(greedy, prompts, strict=True):
            sampling.temperature, sampling.max_tokens = 0.0, prompt.max_new_tokens
        added = {"add_special_tokens": prompts[0].special_tokens}  # vLLM's default depends on the model
        outputs = self._llm.generate(inputs, greedy, use_tqdm=False, tokenization_kwargs=added)
        return [_reply(output) for output in outputs]


def _reply(output: Any) -> Reply | EngineError:
    """Return an engine's answer to a prompt. The engine does not raise for an unanswered one, whose text is empty."""
    answer = output.outputs[0]
    if answer.finish_reason in UNANSWERED:
        return EngineError(
            f"vLLM ended the request with finish_reason {answer.finish_reason!r} instead of an answer; its log says why"
        )
    return Reply(answer.text, len(output.prompt_token_ids))
