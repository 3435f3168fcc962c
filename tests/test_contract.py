"""The contract matrix: every strategy x every adapter and tower x every mode.

Parametrised over the registries: a new strategy is in it by itself, a new adapter needs a line in `tiny.BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from oracle import assert_close, dropped_columns, oracle_logits
from tiny import BUILDERS, CACHE, ENCODES_FIRST, IMAGE, prompt
from torch import Tensor

import tokenprune
from tokenprune import STRATEGIES
from tokenprune.adapters import ADAPTERS
from tokenprune.budget import budget

STEPS = 8
RATIOS = {"fopru": 0.3, "grid": 0.4, "random": 0.25}


@dataclass
class Run:
    """What a mode produced: the prompt repeated as the mode repeats it, the answers, and the logits of every step."""

    inputs: dict[str, Any]
    answers: Tensor  # (batch, steps)
    logits: Tensor  # (batch, steps, vocabulary)


def repeated(inputs: dict[str, Any], n: int, per_row: list[int]) -> dict[str, Any]:
    """The inputs as generate repeats them for n answers a row: a row's pictures stay together, or, before it encoded
    them beforehand, each picture is repeated by itself."""
    out = {k: v.repeat_interleave(n, 0) for k, v in inputs.items() if k != "pixel_values"}
    groups = inputs["pixel_values"].split(per_row if ENCODES_FIRST else 1)
    return {**out, "pixel_values": torch.cat([g for group in groups for g in [group] * n])}


def generated(model: Any, inputs: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor]:
    out = model.generate(**inputs, max_new_tokens=STEPS, return_dict_in_generate=True, output_logits=True, **settings)
    return out.sequences[:, -STEPS:], torch.stack(out.logits, 1)


def greedy(model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    return Run(inputs, *generated(model, inputs, do_sample=False))


def uncached(model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    return Run(inputs, *generated(model, inputs, do_sample=False, use_cache=False))


def static(model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    return Run(inputs, *generated(model, inputs, do_sample=False, cache_implementation="static"))


def sampled(model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    torch.manual_seed(3)
    answers, logits = generated(model, inputs, do_sample=True, num_return_sequences=2)
    return Run(repeated(inputs, 2, per_row), answers, logits)


def embedded(model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    given = {**inputs, "inputs_embeds": embeds}
    del given["input_ids"]
    return Run(inputs, *generated(model, given, do_sample=False))


def decoded_by_hand(model: Any, inputs: dict[str, Any], per_row: list[int], with_ids: bool) -> Run:
    """A loop that passes the growing mask, and position IDs or not (then HF counts padding too)."""
    mask, answers, logits, cache, new = inputs["attention_mask"], [], [], None, dict(inputs)
    for _ in range(STEPS):
        ids = (mask.cumsum(1) - 1).clamp(min=0)[:, -new["input_ids"].shape[1] :]
        out = model(
            **{**new, "attention_mask": mask},
            **{CACHE: cache},
            use_cache=True,
            **({"position_ids": ids} if with_ids else {}),
        )
        cache = out[CACHE]
        logits.append(out.logits[:, -1].detach())
        answers.append(logits[-1][:, :IMAGE].argmax(-1))
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        new = {"input_ids": answers[-1][:, None]}
    return Run(inputs, torch.stack(answers, 1), torch.stack(logits, 1))


def loop(model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    return decoded_by_hand(model, inputs, per_row, with_ids=True)


MODES: dict[str, Callable[..., Run]] = {
    "greedy": greedy,
    "sampled": sampled,
    "uncached": uncached,
    "static": static,
    "embedded": embedded,
    "loop": loop,
}
BATCHES = {"single": [1], "padded": [1, 2]}
#: A single row takes other paths in HF (no mask at all) where the mode builds masks or caches of its own.
CELLS = [(mode, "padded") for mode in MODES] + [(mode, "single") for mode in ("greedy", "uncached", "static")]


@cache
def model_of(case: str) -> Any:
    return BUILDERS[case][1]()


def strategy_of(name: str, **settings: Any) -> tokenprune.Strategy:
    return STRATEGIES[name](**(settings or {"keep_ratio": RATIOS.get(name, 0.3)}))


def test_every_adapter_is_in_the_matrix() -> None:
    assert {adapter for adapter, _ in BUILDERS.values()} == set(ADAPTERS)


@pytest.mark.parametrize(("mode", "batch"), CELLS)
@pytest.mark.parametrize("case", BUILDERS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_dropping_equals_masking(name: str, case: str, mode: str, batch: str) -> None:
    model, per_row = model_of(case), BATCHES[batch]
    with torch.no_grad(), tokenprune.patch(model, strategy_of(name)) as handle:
        run = MODES[mode](model, prompt(per_row), per_row)
    report = handle.report
    ids = torch.cat([run.inputs["input_ids"], run.answers], 1)
    real = torch.cat([run.inputs["attention_mask"], torch.ones_like(run.answers)], 1)
    dropped = dropped_columns(ids, [report])
    assert dropped.any()
    expected = oracle_logits(model, ids, real, run.inputs["pixel_values"], dropped)
    assert_close(run.logits, expected[:, -STEPS - 1 : -1])
    for image in report.images:
        assert image.n_kept == budget(image.n_visual, RATIOS.get(name, 0.3), None)
        assert image.kept.tolist() == sorted(set(image.kept.tolist()))


@pytest.mark.parametrize("case", BUILDERS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_beams(name: str, case: str) -> None:
    """Beams reorder cache rows at every step; each returned score must be the oracle's log-probability."""
    # Where transformers repeats each picture by itself, the beams of a prompt with two pictures see different ones.
    model, per_row, n = model_of(case), [1, 2] if ENCODES_FIRST else [1, 1], 3
    inputs = prompt(per_row)
    with torch.no_grad(), tokenprune.patch(model, strategy_of(name)) as handle:
        search = {"num_beams": n, "num_return_sequences": n, "do_sample": False, "max_new_tokens": STEPS}
        out = model.generate(**inputs, **search, return_dict_in_generate=True, output_scores=True)
        report = handle.report
        if name == "fopru":  # no cache, nothing to reorder: slow, and the same for every strategy
            assert torch.equal(out.sequences, model.generate(**inputs, **search, use_cache=False))
    big = repeated(inputs, n, per_row)
    real = torch.cat([big["attention_mask"], torch.ones(len(out.sequences), STEPS).long()], 1)
    logits = oracle_logits(model, out.sequences, real, big["pixel_values"], dropped_columns(out.sequences, [report]))
    answers = out.sequences[:, -STEPS:]
    log_p = logits[:, -STEPS - 1 : -1].log_softmax(-1).gather(2, answers[..., None])[..., 0]
    assert_close(out.sequences_scores, log_p.mean(1))
    assert len({tuple(answer) for answer in answers.tolist()}) > 2  # the beams differ, so reordering mattered


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("case", BUILDERS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_plain_forward(name: str, case: str, padding: str) -> None:
    """Every surviving position of a forward, whichever side the padding is on."""
    model = model_of(case)
    inputs = prompt([2, 1], padding=padding)
    real = inputs["attention_mask"]
    with torch.no_grad(), tokenprune.patch(model, strategy_of(name)) as handle:
        ids = (real.cumsum(1) - 1).clamp(min=0)
        logits = model(**inputs, position_ids=ids).logits
    dropped = dropped_columns(inputs["input_ids"], [handle.report])
    expected = oracle_logits(model, inputs["input_ids"], real, inputs["pixel_values"], dropped)
    for row in range(2):
        left = (real[row].bool() & ~dropped[row]).nonzero()[:, 0]
        got = logits[row, -len(left) :] if padding == "left" else logits[row, : len(left)]
        assert_close(got, expected[row, left])


@pytest.mark.parametrize("case", BUILDERS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_keeping_all_is_bitwise_the_unpatched_model(name: str, case: str) -> None:
    model, inputs = model_of(case), prompt([1, 2])
    settings: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False}
    with torch.no_grad():
        logits, answers = model(**inputs).logits, model.generate(**inputs, **settings)
        for position_ids in ("original", "compact"):
            with tokenprune.patch(model, strategy_of(name, keep_ratio=1.0), position_ids=position_ids) as handle:
                assert torch.equal(model(**inputs).logits, logits)
                assert torch.equal(model.generate(**inputs, **settings), answers)
                assert handle.report.n_kept == handle.report.n_visual > 0


@pytest.mark.parametrize("case", BUILDERS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_text_only_is_bitwise_the_unpatched_model(name: str, case: str) -> None:
    model, inputs = model_of(case), prompt([0, 0])
    with torch.no_grad():
        logits, answers = model(**inputs).logits, model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
        with tokenprune.patch(model, strategy_of(name)):
            assert torch.equal(model(**inputs).logits, logits)
            out = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True)
    assert torch.equal(out.sequences, answers)
    assert type(out[CACHE]).__name__ == "DynamicCache"


@pytest.mark.parametrize("case", BUILDERS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_batch_gives_what_its_samples_give(name: str, case: str) -> None:
    model, inputs = model_of(case), prompt([1, 1], texts=[4, 4])
    with torch.no_grad(), tokenprune.patch(model, strategy_of(name)) as handle:
        model(**inputs)
        together = handle.report.images
        for row in range(2):
            model(**{k: v[row : row + 1] for k, v in inputs.items()})
            assert torch.equal(handle.report.images[0].kept, together[row].kept)


@pytest.mark.parametrize("case", BUILDERS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_layer_caches_what_is_left(name: str, case: str) -> None:
    model, inputs = model_of(case), prompt([1])
    with torch.no_grad(), tokenprune.patch(model, strategy_of(name)) as handle:
        out = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True)
    n_text = inputs["input_ids"].shape[1] - handle.report.n_visual
    for layer in out[CACHE].layers:  # the last answered token is never fed back
        assert layer.keys.shape[-2] == n_text + handle.report.n_kept + STEPS - 1


@pytest.mark.parametrize("case", BUILDERS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_remove_leaves_nothing_behind(name: str, case: str) -> None:
    model, inputs = model_of(case), prompt([1])
    model.generate(**inputs, max_new_tokens=2)  # HF itself caches things on first use

    def state() -> list[Any]:
        return [
            (module, {k: v if not isinstance(v, dict) else dict(v) for k, v in vars(module).items()})
            for module in model.modules()
        ]

    before = state()
    first = tokenprune.patch(model, strategy_of(name))
    assert state() != before
    second = tokenprune.patch(model, strategy_of(name), position_ids="compact")
    model.generate(**inputs, max_new_tokens=2)
    with pytest.raises(tokenprune.PruningError, match="no report yet"):
        _ = first.report
    assert second.report.n_kept > 0
    first.remove()
    assert second.report.n_kept > 0
    second.remove()
    second.remove()
    assert state() == before
    tokenprune.patch(model, strategy_of(name))
    tokenprune.unpatch(model)
    tokenprune.unpatch(model)
    assert state() == before
