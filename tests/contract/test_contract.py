"""The contract matrix: every strategy x every registered family x every mode.

It is parametrised over the registries: new strategies are included automatically, and the class of a new adapter must
have a Family. Every strategy runs on every family in the most common mode, and on one LLaVA in all other respects that
do not depend on the mode. One strategy per mechanism runs on all LLaVA towers in every mode, and one strategy on every
family in every mode.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from contract import matrix
from contract.matrix import FILE, PAGE, facts_of, section, table
from helpers.contract.cells import (
    ANYWHERE,
    CASES,
    CELLS,
    DEPTH,
    EVERY,
    FEW_PAIRS,
    KEEP_ALL,
    MORE_PAIRS,
    REGISTERED,
    assert_within_budget,
    kept_of,
    model_of,
    refusal_of,
    served,
    stages_of,
    strategy_of,
)
from helpers.contract.modes import BATCHES, STEPS, VIDEO_BATCHES, run_cell, video_batches_of
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, of_left, seen_by
from helpers.families import COMPACT_ONLY, DENOISING, FAMILIES, VERSION
from helpers.families.base import CACHE, ENCODES_FIRST

import tokenprune
from tokenprune import STRATEGIES, UnsupportedError
from tokenprune.adapters import ADAPTERS, adapter_for
from tokenprune.adapters.record import record_of
from tokenprune.adapters.tested import read_tested
from tokenprune.evals.cli.models import strategies_of

#: The stored matrix is that of the newest transformers. From 5.24 on, what it says of the classes that exist is true.
stored = pytest.mark.skipif(VERSION < (5, 24), reason="this transformers is older than the stored matrix")


@stored
def test_the_readme_shows_the_matrix() -> None:
    """That is adapters/models.md; `make matrix` writes its table."""
    tested = read_tested()
    here = {case for case, one in tested.items() if hasattr(transformers, one.class_name)}
    assert here == {*CASES, *DENOISING, *COMPACT_ONLY}
    assert section(PAGE.read_text(encoding="utf-8")) == table(tested)
    assert "✗" not in table(tested)


@stored
@pytest.mark.parametrize("case", [*CASES, *DENOISING, *COMPACT_ONLY])
def test_what_tokenprune_models_prints_is_what_the_adapter_answers(case: str) -> None:
    """`make matrix` writes the file that it prints."""
    tested = read_tested()[case]
    assert {name: asdict(tested)[name] for name in facts_of(case)} == facts_of(case)
    adapter = adapter_for(model_of(case))
    inside = {name for name in STRATEGIES if stages_of(strategy_of(name))}
    too_early = inside if record_of(tested.model_type).first_stage > DEPTH else set()  # published models are deeper
    can = [name for name in STRATEGIES if refusal_of(name, adapter) is None and name not in too_early]
    assert strategies_of(tested) == can


def test_what_was_not_run_stays_in_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a class that this transformers lacks."""
    for name in ("FILE", "PAGE"):
        monkeypatch.setattr(matrix, name, Path(shutil.copy(getattr(matrix, name), tmp_path)))
    (tmp_path / "runs.json").write_text("{}")
    matrix.write(tmp_path / "runs.json")
    assert json.loads(matrix.FILE.read_text()) == json.loads(FILE.read_text())
    assert matrix.PAGE.read_text() == PAGE.read_text()


@stored
def test_every_adapter_is_in_the_matrix() -> None:
    assert {family.class_name for family in EVERY.values()} >= {
        name for name in ADAPTERS if hasattr(transformers, name)
    }


def test_refusals_are_those_that_the_families_tell() -> None:
    for case, family in REGISTERED.items():
        if family.refused is not None:
            with pytest.raises(UnsupportedError, match=family.refused):
                tokenprune.patch(model_of(case), strategy_of(ANYWHERE), position_ids="original")


@pytest.mark.parametrize(("name", "case", "mode", "batch"), CELLS)
def test_dropping_equals_masking(name: str, case: str, mode: str, batch: str) -> None:
    family, model = served(name, case)
    with family.expectation(mode):
        with torch.no_grad(), tokenprune.patch(model, strategy_of(name), position_ids="original") as handle:
            run = run_cell(family, model, mode, batch)
        report = handle.report
        dropped = dropped_columns(run.whole(family)["input_ids"], [report])
        with as_reported(model, run.whole(family)["input_ids"], [report]):
            expected = run.expected(family, model, dropped)
        # Without a cache, the text's attention is read again in every step, and the report describes the last one.
        again = mode == "uncached" and "text_attention" in strategy_of(name).needs
        steps = slice(-1 if again else None, None)
        assert_close(run.logits[:, steps], expected[:, steps])
        for image in report.images:
            assert_within_budget(strategy_of(name), image)


@pytest.mark.parametrize(("name", "case"), FEW_PAIRS)
def test_beams(name: str, case: str) -> None:
    family, model = served(name, case)
    # If transformers repeats each image separately, the beams of a prompt with two images see different images.
    per_row, n = [1, 2] if ENCODES_FIRST and family.repeats_rows() else [1, 1], 2
    inputs = family.prompt(per_row)
    with family.expectation("beams"):
        with torch.no_grad(), tokenprune.patch(model, strategy_of(name), position_ids="original") as handle:
            search = {"num_beams": n, "num_return_sequences": n, "do_sample": False, "max_new_tokens": STEPS}
            out = model.generate(**inputs, **search, return_dict_in_generate=True, output_scores=True)
            report = handle.report
            if name == "fopru":  # no cache, nothing to reorder: slow, and the same for every strategy
                assert torch.equal(out.sequences, model.generate(**inputs, **search, use_cache=False))
        answers = out.sequences[:, -STEPS:]
        whole = family.continued(family.repeated(inputs, n, per_row), answers)
        with as_reported(model, out.sequences, [report]):
            ids = family.repeated_ids(model, inputs, answers)
            logits = family.oracle(model, whole, dropped_columns(out.sequences, [report]), ids)
        log_p = logits[:, -STEPS - 1 : -1].log_softmax(-1).gather(2, answers[..., None])[..., 0]
        assert_close(out.sequences_scores, log_p.mean(1))
        assert len({tuple(answer) for answer in answers.tolist()}) > 2  # the beams differ, so reordering mattered


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize(("name", "case"), FEW_PAIRS)
def test_plain_forward(name: str, case: str, padding: str) -> None:
    """Checks every surviving position of a forward, with padding on either side. Kept tokens have the same position IDs
    as without pruning, in all components."""
    family, model = served(name, case)
    inputs = family.prompt([2, 1], padding=padding)
    ids = family.position_ids(model, inputs)
    with torch.no_grad(), tokenprune.patch(model, strategy_of(name), position_ids="original") as handle:
        logits = model(**inputs, position_ids=ids).logits
    dropped = dropped_columns(inputs["input_ids"], [handle.report])
    at_the_end = dropped_columns(inputs["input_ids"], [seen_by(handle.report, DEPTH)])
    with as_reported(model, inputs["input_ids"], [handle.report]):
        expected = family.oracle(model, inputs, dropped)
    visual = family.visual(inputs["input_ids"])
    for row in range(2):
        left = (inputs["attention_mask"][row].bool() & ~at_the_end[row]).nonzero()[:, 0]
        assert_close(of_left(logits[row], inputs["attention_mask"][row], left), expected[row, left])
        reported = torch.cat([image.position_ids for image in handle.report.images if image.row == row], -1)
        assert torch.equal(reported, ids[..., row, visual[row] & ~dropped[row]])


@pytest.mark.parametrize(("name", "case"), FEW_PAIRS)
def test_the_last_logits_are_those_of_all(name: str, case: str) -> None:
    """Also in models that drop the other columns before their last layers."""
    _, model = served(name, case)
    for batch in batches_of(case):
        with torch.no_grad(), tokenprune.patch(model, strategy_of(name), position_ids="original"):
            for n in (1, 3):
                assert_close(model(**batch, logits_to_keep=n).logits, model(**batch).logits[:, -n:])


@pytest.mark.parametrize(("name", "case"), FEW_PAIRS)
def test_compact_is_masking_under_compact_ids(name: str, case: str) -> None:
    family, model = served(name, case)
    inputs = family.prompt([1, 2])
    with torch.no_grad(), tokenprune.patch(model, strategy_of(name), position_ids="compact") as handle:
        out = model.generate(
            **inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    whole = family.continued(inputs, out.sequences[:, -STEPS:])
    dropped = dropped_columns(out.sequences, [handle.report])
    ids = family.compact_ids(model, whole, dropped)
    logits = torch.stack(out.logits, 1)
    with as_reported(model, out.sequences, [handle.report]):
        expected = family.oracle(model, whole, dropped, ids)
        original = family.oracle(model, whole, dropped)
    assert_close(logits, expected[:, -STEPS - 1 : -1])
    if dropped.any() and family.numbered:  # so the oracle distinguishes the two
        assert (logits - original[:, -STEPS - 1 : -1]).abs().max() > 1e-2


@pytest.mark.parametrize(("name", "case"), FEW_PAIRS)
def test_keeping_all_is_bitwise_the_unpatched_model(name: str, case: str) -> None:
    _, model = served(name, case)
    settings: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False}
    for batch in batches_of(case):
        with torch.no_grad():
            logits, answers = model(**batch).logits, model.generate(**batch, **settings)
            for position_ids in ("original", "compact"):
                strategy = strategy_of(name, keep_ratio=1.0, **KEEP_ALL.get(name, {}))
                with tokenprune.patch(model, strategy, position_ids=position_ids) as handle:
                    assert torch.equal(model(**batch).logits, logits)
                    assert torch.equal(model.generate(**batch, **settings), answers)
                    assert handle.report.n_kept == handle.report.n_visual > 0


def batches_of(case: str) -> list[dict[str, Any]]:
    names = ["padded", *video_batches_of(FAMILIES[case])]
    return [FAMILIES[case].prompt(**{**BATCHES, **VIDEO_BATCHES}[name]) for name in names]


@pytest.mark.parametrize(("name", "case"), FEW_PAIRS)
def test_text_only_is_bitwise_the_unpatched_model(name: str, case: str) -> None:
    family, model = served(name, case)
    inputs = family.prompt([0, 0])
    with torch.no_grad():
        logits, answers = model(**inputs).logits, model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
        with tokenprune.patch(model, strategy_of(name), position_ids="original"):
            assert torch.equal(model(**inputs).logits, logits)
            out = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True)
    assert torch.equal(out.sequences, answers)
    assert type(out[CACHE]).__name__.removeprefix(type(model).__name__.partition("For")[0]) == "DynamicCache"


@pytest.mark.parametrize(("name", "case"), MORE_PAIRS)
def test_a_batch_gives_what_its_samples_give(name: str, case: str) -> None:
    family, model = served(name, case)
    inputs = family.prompt([1, 1], texts=[4, 7])

    def run(given: dict[str, Any]) -> None:
        model(**given, position_ids=family.position_ids(model, given))

    with torch.no_grad(), tokenprune.patch(model, strategy_of(name), position_ids="original") as handle:
        run(inputs)
        together = handle.report.images
        for row in range(2):
            run(family.rows(inputs, [row], [1, 1]))
            alone = [kept_of(image) for image in handle.report.images]
            assert alone == [kept_of(image) for image in together if image.row == row]


@pytest.mark.parametrize(("name", "case"), FEW_PAIRS)
def test_every_layer_caches_what_is_left(name: str, case: str) -> None:
    family, model = served(name, case)
    inputs = family.prompt([1])
    with torch.no_grad(), tokenprune.patch(model, strategy_of(name), position_ids="original") as handle:
        out = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True)
    n_text = inputs["input_ids"].shape[1] - handle.report.n_visual
    layers = getattr(out[CACHE], "layers", ())  # older caches of Qwen3.5 have none
    for number, layer in enumerate(layers):  # the last answer token is never fed back
        if not hasattr(layer, "get_seq_length"):  # the layer has a state, or reads the keys of another layer
            continue
        # The number of tokens that a layer has been given; one with a sliding window holds fewer.
        n_left = sum(len(image.kept_at(number)) for image in handle.report.images)
        assert layer.get_seq_length() == n_text + n_left + STEPS - 1


@pytest.mark.parametrize(("name", "case"), MORE_PAIRS)
def test_remove_leaves_nothing_behind(name: str, case: str) -> None:
    family, model = served(name, case)
    inputs = family.prompt([1])
    model.generate(**inputs, max_new_tokens=2)  # transformers itself caches objects on first use

    def state() -> list[Any]:
        return [
            (
                module,
                {
                    k: v if not isinstance(v, dict) else dict(v)
                    for k, v in vars(module).items()
                    if k not in family.volatile
                },
            )
            for module in model.modules()
        ]

    before = state()
    first = tokenprune.patch(model, strategy_of(name), position_ids="original")
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
    tokenprune.patch(model, strategy_of(name), position_ids="original")
    tokenprune.unpatch(model)
    tokenprune.unpatch(model)
    assert state() == before
