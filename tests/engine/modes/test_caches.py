"""Caches of every kind, also with biases of attention."""

import contextlib
import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine.stages.test_skipping import Skipping
from engine.test_position_ids import Varied
from helpers.contract.answers import STEPS, STRATEGY, answer, assert_answers
from helpers.contract.cells import DEPTH, FIRST_CASE, model_of
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES, present
from helpers.families.base import CACHE, IMAGE, RECENT
from helpers.models.staged import Staged
from helpers.tiny import prompt, tiny_llava
from torch import Tensor
from transformers import DynamicCache, QuantizedCache, StaticCache, cache_utils

import tokenprune
from tokenprune import AveragePooling, SparseVLM, Strategy
from tokenprune.engine.cache.pruned import index_of

QUANTISED: dict[str, dict[str, Any]] = {
    # 16: the tiny model's heads are so narrow that the default group is wider than all of them
    "quanto": {"nbits": 4, "q_group_size": 16, "residual_length": 2},
    "fp8": {},
}
#: fp8 came with transformers 5.2x.
BACKENDS = ["quanto", *(["fp8"] if hasattr(cache_utils, "Fp8QuantizedLayer") else [])]


def shortened_by_hand(model: Any, inputs: dict[str, Any], kept: Tensor, answers: Tensor, cache: Any) -> Tensor:
    """Return the logits of the unpatched decoder on only the kept embeddings, at their original position IDs.

    Masking cannot be the oracle for a lossy cache: masked tokens would be quantised together with the others.
    """
    core, ids = model.model, inputs["input_ids"]
    seen: list[Tensor] = []
    handle = core.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad(), contextlib.closing(contextlib.ExitStack()) as hooks:
        hooks.callback(handle.remove)
        model(**inputs)
    embeds, positions, logits = seen[0][:, kept], kept[None], []
    with torch.no_grad():
        for step in range(STEPS):
            out = core.language_model(
                inputs_embeds=embeds, position_ids=positions, use_cache=True, **{CACHE: cache}
            ).last_hidden_state
            logits.append(model.lm_head(out[:, -1]))
            embeds = model.get_input_embeddings()(answers[:, step : step + 1])
            positions = torch.tensor([[ids.shape[1] + step]])
    return torch.stack(logits, 1)


@pytest.mark.usefixtures("quanto_in_python")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_quantised_cache_holds_the_kept_tokens(llava: Any, backend: str) -> None:
    settings = QUANTISED[backend]
    inputs = prompt([1])
    with tokenprune.patch(llava, STRATEGY) as handle:
        out = answer(llava, inputs, cache_implementation="quantized", cache_config={"backend": backend, **settings})
        assert index_of(out[CACHE]) is not None
        for layer in out[CACHE].layers:
            assert layer.get_seq_length() == 6 + 9 + STEPS - 1
    kept = torch.cat([torch.arange(3), 3 + handle.report.images[0].kept, torch.arange(39, 42)])
    cache = QuantizedCache(backend, llava.config.get_text_config(), **settings)
    expected = shortened_by_hand(llava, inputs, kept, out.sequences[:, -STEPS:], cache)
    assert_close(torch.stack(out.logits, 1), expected)


@pytest.mark.usefixtures("quanto_in_python")
@pytest.mark.parametrize("backend", BACKENDS)
def test_beams_over_a_quantised_cache(llava: Any, backend: str) -> None:
    """Beam search reorders its rows. The first logits come from keys that are not quantised yet."""
    config = {"backend": backend, **QUANTISED[backend]}
    beams: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 3}
    with tokenprune.patch(llava, STRATEGY) as handle:
        whole = answer(llava, prompt([1]), **beams)
        out = answer(llava, prompt([1]), **beams, cache_implementation="quantized", cache_config=config)
        assert [image.n_kept for image in handle.report.images] == [9, 9, 9]
    assert_close(out.logits[0], whole.logits[0])
    assert not torch.equal(out.logits[-1], whole.logits[-1])  # so it did quantise
    assert_equal_rows(out[CACHE])


def assert_equal_rows(cache: Any) -> None:
    """Check that the beams of a prompt have equal rows in the ledger."""
    ledger = index_of(cache)
    assert ledger.columns.shape == (3, 15)
    assert bool((ledger.columns == ledger.columns[0]).all())


class NoStream:
    """Stands in for a CUDA stream: on a CPU everything happens in order."""

    def wait_stream(self, other: object) -> None:
        pass


@pytest.mark.parametrize("kind", ["offloaded", "offloaded_static"])
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
def test_offloaded_caches(llava: Any, kind: str, per_row: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers offloads only with CUDA streams. With fake ones, the rest of its code runs on a CPU."""
    monkeypatch.setattr(torch, "Stream", lambda *args, **kwargs: NoStream())
    monkeypatch.setattr(torch.cuda, "Stream", lambda *args, **kwargs: NoStream())
    monkeypatch.setattr(torch.cuda, "default_stream", lambda *args: NoStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(NoStream, "__enter__", lambda self: self, raising=False)
    monkeypatch.setattr(NoStream, "__exit__", lambda self, *error: None, raising=False)
    out = assert_answers(llava, llava, per_row, cache_implementation=kind)
    assert out[CACHE].offloading


@pytest.mark.skipif(not torch.cuda.is_available(), reason="offloaded caches need a CUDA device")
@pytest.mark.parametrize("kind", ["offloaded", "offloaded_static"])
def test_offloaded_caches_on_a_gpu(kind: str) -> None:
    model, inputs = tiny_llava().cuda(), {name: tensor.cuda() for name, tensor in prompt([1, 2]).items()}
    with tokenprune.patch(model, STRATEGY):
        expected, out = (answer(model, inputs, **k) for k in ({}, {"cache_implementation": kind}))
    assert_close(torch.stack(out.logits, 1), torch.stack(expected.logits, 1))


def test_no_word_about_old_names(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for an absent cache must not use its old name, about which transformers warns."""
    said: list[str] = []
    monkeypatch.setattr("transformers.utils.generic.logger.warning_once", said.append)
    with tokenprune.patch(llava, STRATEGY), torch.no_grad():
        llava(**prompt([1]), use_cache=False)
    assert said == []


@pytest.mark.skipif(not hasattr(DynamicCache, "activate_past_recording"), reason="transformers cannot crop windows yet")
def test_a_crop_of_nothing_lets_go_of_what_was_recorded_for_crops() -> None:
    """Assisted decoding crops after every step, even if it accepts all tokens."""
    family, model = FAMILIES["lfm2-vl"], FAMILIES["lfm2-vl"].build()
    cache = DynamicCache(config=model.config.get_text_config())
    cache.activate_past_recording()
    with torch.no_grad(), tokenprune.patch(model, STRATEGY):
        model(**family.prompt([1]), **{CACHE: cache})
        n_columns = cache.get_seq_length()
        states: list[Any] = [layer for layer in cache.layers if hasattr(layer, "conv_states")]
        assert all(layer.conv_states[0].shape[-1] > layer.conv_kernel_size[0] for layer in states)
        cache.crop(0)
    assert states
    assert all(layer.conv_states[0].shape[-1] == layer.conv_kernel_size[0] for layer in states)
    assert cache.get_seq_length() == n_columns


@pytest.mark.skipif(not RECENT, reason="transformers' layers take in the padding of later turns, patched or not")
@pytest.mark.parametrize("name", present("qwen3.5", "lfm2-vl"))
def test_padding_of_a_later_turn(name: str) -> None:
    """Layers with a state leave it out, even if `generate` has already made the masks, as for a static cache."""
    family, model = FAMILIES[name], FAMILIES[name].build()
    config, found = model.config.get_text_config(), []
    question, more = family.prompt([1, 1], texts=[4, 4]), family.prompt([0, 0], texts=[3, 5])
    for cache in (DynamicCache(config=config), StaticCache(config=config, max_cache_len=256)):
        with tokenprune.patch(model, STRATEGY):
            first = answer(model, question, **{CACHE: cache})
            given = family.continued(question, first.sequences[:, -STEPS:])
            along = ["input_ids", "attention_mask", *family.token_types(given["input_ids"])]
            whole = {key: torch.cat([given[key], more[key]], 1) for key in along}
            found.append(torch.stack(answer(model, whole, **{CACHE: first[CACHE]}).logits, 1))
    assert_close(*found)


# What a cache knows about its rows follows them: holes, position IDs, attention biases, stages and skipped layers.


STRATEGIES = {
    "holes": Varied(),
    "biased": AveragePooling(keep_ratio=0.3, attention_bias="size"),
    "biased inside": SparseVLM(keep_ratio=0.5, recycle=1.0, clusters=0.2, attention_bias="size"),
    "stages": Staged(ragged=True),
    "skipping": Skipping(),
}


def check_continued(
    change: Callable[[Any], tuple[Any, list[int]]], strategy: Strategy, position_ids: Any = "original", crop: int = 0
) -> None:
    """Check that text after a cache has the oracle's logits. `change` makes another cache of it, and tells which rows
    of the prompt that has. The last `crop` columns of the prompt are taken back first."""
    family, model = FAMILIES[FIRST_CASE], model_of(FIRST_CASE, DEPTH)
    inputs = family.prompt([1, 1], texts=[4, 4])
    with torch.no_grad(), tokenprune.patch(model, strategy, position_ids=position_ids) as handle:
        given = {**inputs, "position_ids": family.position_ids(model, inputs)}
        cache = model(**given, use_cache=True)[CACHE]
        if crop:
            cache.crop(-crop)
            inputs |= {name: inputs[name][:, :-crop] for name in ("input_ids", "attention_mask")}
        cache, rows = change(cache)
        whole = family.continued(
            {name: inputs[name][rows] for name in ("input_ids", "attention_mask")},
            torch.randint(2, IMAGE, (len(rows), 3), generator=torch.Generator().manual_seed(3)),
        )
        whole["pixel_values"] = inputs["pixel_values"][rows]
        new = {"input_ids": whole["input_ids"][:, -3:], "attention_mask": whole["attention_mask"]}
        logits = model(**new, position_ids=family.position_ids(model, whole)[:, -3:], **{CACHE: cache}).logits
    images = [replace(handle.report.images[row], row=number) for number, row in enumerate(rows)]
    report = replace(handle.report, images=images)
    dropped = dropped_columns(whole["input_ids"], [report])
    numbers = family.compact_ids(model, whole, dropped) if position_ids == "compact" else None
    biased = [report] if getattr(strategy, "attention_bias", None) else []
    with as_reported(model, whole["input_ids"], [report], biased):
        assert_close(logits, family.oracle(model, whole, dropped, numbers)[:, -3:])


def changed(method: str, argument: Any, rows: list[int]) -> Callable[[Any], tuple[Any, list[int]]]:
    def change(cache: Any) -> tuple[Any, list[int]]:
        getattr(cache, method)(argument)
        return cache, rows

    return change


@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(
    "change",
    [
        changed("reorder_cache", torch.tensor([1, 0]), [1, 0]),
        changed("batch_select_indices", torch.tensor([1]), [1]),
        changed("batch_repeat_interleave", 2, [0, 0, 1, 1]),
        lambda cache: (copy.deepcopy(cache), [0, 1]),
        lambda cache: (pickle.loads(pickle.dumps(cache)), [0, 1]),
    ],
    ids=["reordered", "selected", "repeated", "copied", "pickled"],
)
def test_what_is_known_follows_the_rows(change: Any, name: str, position_ids: Any) -> None:
    """Beam search and contrastive search move rows."""
    check_continued(change, STRATEGIES[name], position_ids)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_end_of_the_prompt_is_cropped(name: str) -> None:
    check_continued(changed("reorder_cache", torch.tensor([1, 0]), [1, 0]), STRATEGIES[name], crop=2)
