"""The denoising steps of a robot policy, whose action expert reads the cache that a pruned prefix has filled.

EmbeddingFunction   images are encoded and embedded before the base model is called; their records travel along
after_prefix        the prefix is in the cache: the steps begin
before_step         the expert gets cache, masks and position IDs like a language model that continues the prefix
  ReusedOutput        its attention and MLPs return their output of an earlier step
after_step          the step ends
"""

from __future__ import annotations

import inspect
import threading
from dataclasses import dataclass, field, replace
from typing import Any, cast

from torch import nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import bind_arguments, find_cache, named_arguments
from tokenprune.adapters.decoder.denoising import PREFIX_ATTRIBUTE, Policy, PolicyPrefix
from tokenprune.encoded import RECORD_ATTRIBUTE, EncodedImage
from tokenprune.engine.cache.pruned import index_of, n_slots
from tokenprune.engine.call import CallContext
from tokenprune.engine.patch import ForwardOverride, MethodOverride, Register, dynamo_disabled
from tokenprune.engine.prefill import Prefill
from tokenprune.engine.stages.pruning import StagedLayer
from tokenprune.engine.stages.skipping import SkippedLayer
from tokenprune.report import Denoising, Report
from tokenprune.strategy import Strategy
from tokenprune.strategy.staged import valid_interval

#: The attribute of a cache that holds its ActionSteps. It lives and is copied with the cache.
ACTIONS_ATTRIBUTE = "_tokenprune_actions"


@dataclass(eq=False)
class ActionSteps:
    """The steps that have read one prefix so far.

    report: the report of the prefix.
    outputs: the last computed output of each module of the expert, by its layer and its index there.
    reuses: whether the current step uses these outputs again.
    """

    report: Report | None = None
    outputs: dict[tuple[int, int], Any] = field(default_factory=dict)
    reuses: bool = False


class CurrentSteps(threading.local):
    """The steps of which each thread is computing one; None outside of a step. A copy or pickle of it is empty."""

    now: ActionSteps | None = None

    def __reduce__(self) -> tuple[type[CurrentSteps], tuple[()]]:
        return type(self), ()


class PolicySteps:
    """The action expert of one patched policy."""

    def __init__(self, strategy: Strategy, adapter: ModelAdapter, context: CallContext, prefill: Prefill) -> None:
        self.adapter, self.prefill, self._context, self._current = adapter, prefill, context, CurrentSteps()
        self.every = valid_interval(strategy)

    @property
    def policy(self) -> Policy:
        return cast(Policy, self.adapter)

    def register(self, register: Register) -> None:
        expert: Any = self.policy.expert
        register(EmbeddingFunction(self.adapter, self._context).install())
        register(self.adapter.language_model.register_forward_hook(self.after_prefix, with_kwargs=True))
        register(expert.register_forward_pre_hook(self.before_step, with_kwargs=True))
        register(expert.register_forward_hook(self.after_step, with_kwargs=True, always_call=True))
        skipping, stages = self.prefill.skipping, self.prefill.stages
        for number in () if skipping is None else skipping.layers:
            register(SkippedLayer(expert.layers[number]).install())
        if stages is not None:
            for number in range(stages.stages[0].layer, len(expert.layers)):
                register(StagedLayer(expert.layers[number], stages, number).install())
        if self.every > 1:
            for number in range(len(expert.layers)):
                for place, module in enumerate(self.policy.expert_outputs(number)):
                    register(ReusedOutput(module, self._current, (number, place)).install())

    @dynamo_disabled
    def after_prefix(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        forward, cache = self._context.forward, find_cache(named_arguments(module, args, kwargs), output)
        if cache is not None:
            setattr(cache, ACTIONS_ATTRIBUTE, ActionSteps(None if forward is None else forward.report))

    @dynamo_disabled
    def before_step(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[tuple[()], dict[str, Any]] | None:
        self._current.now = None
        kwargs = named_arguments(module, args, kwargs)
        cache = find_cache(kwargs)
        setattr(kwargs["inputs_embeds"], PREFIX_ATTRIBUTE, PolicyPrefix({}))  # actions, no visual tokens
        self.prefill.before_base_model(module, (), kwargs)
        if cache is not None:
            self._begin(cache)
        return self.prefill.before_language_model(module, (), kwargs)

    @dynamo_disabled
    def after_step(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if output is not None:  # no exception was raised
            output = self.prefill.after_language_model(module, (), named_arguments(module, args, kwargs), output)
        self._current.now = None
        self.prefill.after_base_model(module, args, kwargs, output)
        return output

    def _begin(self, cache: Any) -> None:
        """Count a step."""
        now: ActionSteps = getattr(cache, ACTIONS_ATTRIBUTE, None) or ActionSteps()
        setattr(cache, ACTIONS_ATTRIBUTE, now)
        self._current.now = now
        done = Denoising()
        if now.report is not None and now.report.denoising is not None:
            done = now.report.denoising
        now.reuses = bool(now.outputs) and done.steps % self.every > 0
        if now.report is None:
            return
        held, unpruned = cached_bytes(cache, len(self.adapter.layers))
        done = done.after_step(0 if now.reuses else held, unpruned, computed=not now.reuses)
        now.report = replace(now.report, denoising=done)
        self.prefill.publish(now.report)


class EmbeddingFunction(MethodOverride):
    """Overrides the policy's method that encodes the images and returns the base model's embeddings; marks these."""

    def __init__(self, adapter: ModelAdapter, context: CallContext) -> None:
        super().__init__(*cast(Policy, adapter).embedding_function)
        self._adapter, self._context = adapter, context

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.original)

    def override(self, *args: Any, **kwargs: Any) -> Any:
        images = self._begin()
        try:
            embeds = self.original(*args, **kwargs)
        finally:
            self._context.encodings.collect({})
        self._mark(embeds, bind_arguments(self.original, args, kwargs), images)
        return embeds

    @dynamo_disabled
    def _begin(self) -> dict[str, list[EncodedImage]]:
        """Collect the images of this call like those of a call of the base model."""
        images: dict[str, list[EncodedImage]] = {modality.name: [] for modality in self._adapter.modalities}
        self._context.encodings.collect(images)
        return images

    @dynamo_disabled
    def _mark(self, embeds: Any, call: dict[str, Any], images: dict[str, list[EncodedImage]]) -> None:
        visual, used = cast(Policy, self._adapter).embedded(call)
        (name,) = images
        prefix = PolicyPrefix({name: visual})
        seen = [image for image, is_used in zip(images[name], used.tolist(), strict=True) if is_used]
        setattr(prefix, RECORD_ATTRIBUTE, seen)
        setattr(embeds, PREFIX_ATTRIBUTE, prefix)


class ReusedOutput(ForwardOverride):
    """A module that returns its last computed output in steps that reuse outputs. `key` is the same in every patch,
    because a patch may be replaced between two steps."""

    def __init__(self, module: nn.Module, current: CurrentSteps, key: tuple[int, int]) -> None:
        super().__init__(module)
        self._current, self._key = current, key

    def override(self, *args: Any, **kwargs: Any) -> Any:
        if (stored := self._stored()) is not None:
            return stored
        output = self.original(*args, **kwargs)
        self._store(output)
        return output

    @dynamo_disabled
    def _stored(self) -> Any:
        now = self._current.now
        return now.outputs[self._key] if now is not None and now.reuses else None

    @dynamo_disabled
    def _store(self, output: Any) -> None:
        if (now := self._current.now) is not None:
            now.outputs[self._key] = output


def cached_bytes(cache: Any, n_layers: int) -> tuple[int, int]:
    """The bytes of keys and values that a cache holds for a prefix, and that it would hold for the unpruned one."""
    index, n = index_of(cache), n_slots(cache)
    filled = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    first = (filled[0].keys.nbytes + filled[0].values.nbytes) // max(n, 1)
    n_columns = n if index is None else n + index.n_dropped
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in filled), first * n_columns * n_layers
