"""The cases of a round: the unpruned model, strategies, and the ideal of each strategy."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tokenprune.adapters import adapter_for
from tokenprune.adapters.record import record_of
from tokenprune.adapters.towers.layers import RowLayers
from tokenprune.evals.bench import ideal
from tokenprune.evals.bench.inputs.prompts import Inputs, n_visual
from tokenprune.evals.bench.schedule import Schedule
from tokenprune.evals.bench.timing.memory import with_peak
from tokenprune.evals.models.cache import cache_bytes, missing_cache
from tokenprune.evals.run.setups import UNPRUNED, Pruned

IDEAL = "ideal"
#: Attention that PyTorch's FLOP counter can count.
COUNTABLE = ("sdpa", "eager")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The costs of a case that are the same in every run, as stored in its file.

    name: unique in a batch size. strategy: as the tables call it. ideal: the name of its ideal, None if it has none.
    n_mean: visual tokens that a decoder layer sees, on average.
    flops: floating-point operations of the prefill, vision tower included; attention's over the full square, causal or
        not.
    peak_bytes: see memory.py; of the prefill, vision tower and KV cache included.
    generate_bytes: the same for `generate`, None if that was not run; n_new: its number of new tokens.
    settings: the strategy's, and a digest of its code; None if nothing is pruned, and in files from before that was
        stored.
    """

    batch: int
    name: str
    strategy: str
    keep_ratio: float
    n_visual: int
    n_kept: int
    n_mean: float
    schedule: Schedule
    ideal: str | None
    flops: int
    kv_cache_bytes: int
    peak_bytes: int
    generate_bytes: int | None = None
    n_new: int | None = None
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Case:
    """One thing to time.

    patched: a context that prepares the model for the case. prefill: to be called inside it.
    n_columns: tokens of a row, as a mask over all of them counts. settings: as in `Facts`.
    """

    name: str
    strategy: str
    keep_ratio: float
    schedule: Schedule
    ideal: str | None
    n_columns: int
    patched: Callable[[], AbstractContextManager[Any]] = field(repr=False)
    prefill: Callable[[], Any] = field(repr=False)
    settings: Mapping[str, Any] | None = None


def cases(
    model: Any, inputs: Inputs, pruned: Sequence[Pruned], known: Mapping[tuple[int, str], Facts] | None = None
) -> list[Case]:
    """Return the unpruned model, then the ideals, then the strategies.

    Each strategy that is not among the `known` facts, by batch size and name, is run once, and its report says how many
    tokens it keeps. Strategies that keep equally many share an ideal. There is none for a strategy that skips layers,
    for one that prunes between the layers of a tower that packs images without a merger (Pixtral's), and for the models
    whose record says so.
    """
    adapter = adapter_for(model)
    n_layers = len(adapter.layers)
    n_tower = 0 if adapter.tower_layers is None else len(adapter.tower.layers(adapter.vision_tower))
    n_columns, count = inputs["input_ids"].shape[1], n_visual(model, inputs)
    has_ideal = record_of(model.config.model_type).has_ideal
    packed = isinstance(adapter.tower_layers, RowLayers) and adapter.tower.row is None

    def prefill() -> Any:
        return model(**inputs, **missing_cache(model), use_cache=True, logits_to_keep=1)

    whole = Schedule((count,) * n_layers)
    unpruned, ideals = [Case(UNPRUNED, UNPRUNED, 1.0, whole, None, n_columns, nullcontext, prefill)], {}
    strategies = []
    for setup in pruned:
        own = f"{setup.label} @ {setup.keep_ratio:g}"
        fact = (known or {}).get((len(inputs["input_ids"]), own))
        if fact is None:
            with setup.patched(model) as handle, torch.inference_mode():
                prefill()
            schedule = Schedule.of(handle.report, n_layers, n_tower)
        else:
            schedule = fact.schedule
        name = f"{IDEAL} {schedule}" if has_ideal and schedule.executed and not (packed and schedule.tower) else None
        if name is not None:
            ideals[name] = _ideal(model, inputs, name, schedule, n_columns - count)
        patched = partial(setup.patched, model)
        settings = json.loads(json.dumps(setup.identity()))  # as when read from a file
        strategies.append(
            Case(own, setup.label, setup.keep_ratio, schedule, name, n_columns, patched, prefill, settings=settings)
        )
    return unpruned + list(ideals.values()) + strategies


def _ideal(model: Any, inputs: Inputs, name: str, schedule: Schedule, n_text: int) -> Case:
    return Case(
        name,
        IDEAL,
        schedule.mean / n_visual(model, inputs),
        schedule,
        None,
        schedule.entering + n_text,
        lambda: ideal.narrowed(model, inputs, schedule, n_text),
        lambda: ideal.prefill(model, inputs, schedule),
    )


def facts(model: Any, inputs: Inputs, case: Case) -> Facts:
    """Count the costs of a case in two untimed calls."""
    with case.patched():
        with torch.inference_mode():
            output, peak = with_peak(case.prefill, model.device)
        kv_cache_bytes = cache_bytes(output)
        del output
        flops = count_flops(model, case.prefill)
    return Facts(
        batch=len(inputs["input_ids"]),
        name=case.name,
        strategy=case.strategy,
        keep_ratio=case.keep_ratio,
        n_visual=n_visual(model, inputs),
        n_kept=case.schedule.entering,
        n_mean=case.schedule.mean,
        schedule=case.schedule,
        ideal=case.ideal,
        flops=flops,
        kv_cache_bytes=kv_cache_bytes,
        peak_bytes=peak,
        settings=case.settings,
    )


@torch.inference_mode()
def count_flops(model: Any, call: Callable[[], Any]) -> int:
    """Count the operations of a call of the model, patched or not."""
    known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with _countable(model), _frozen(model), FlopCounterMode(display=False, custom_mapping=known) as counter:
        call()
    return counter.get_total_flops()


@contextmanager
def _countable(model: Any) -> Iterator[None]:
    """Replace other implementations of attention by PyTorch's, which does the same operations."""
    own = model.config._attn_implementation
    if own not in COUNTABLE:
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if own not in COUNTABLE:
            model.set_attn_implementation(own)


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Turn off gradients of all weights: the counter fails if a module gets a weight as an argument, as in Idefics2."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def _attention_flops(
    queries: Sequence[int], keys: Sequence[int], values: Sequence[int], *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Count the operations of the CPU's fused attention on shapes (batch, heads, tokens, width)."""
    batch, heads, n_queries, width = queries
    return 2 * batch * heads * n_queries * keys[2] * (width + values[3])
