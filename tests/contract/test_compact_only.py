"""The contract matrix of models that use position IDs as places in the cache: pruning equals the language model on only
the kept tokens, numbered without gaps."""

from typing import Any

import pytest
import torch
from helpers.contract.cells import ANYWHERE, assert_within_budget, model_of, refusal_of, strategy_of
from helpers.contract.modes import MODES, STEPS, Run
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import COMPACT_ONLY, Family
from helpers.families.base import CACHE
from helpers.families.packed import MiniMaxM3
from torch import Tensor

import tokenprune
from tokenprune import STRATEGIES, PruningError, UnsupportedError
from tokenprune.adapters import adapter_for

BATCHES: dict[str, dict[str, Any]] = {
    "single": {"images_per_row": [2]},
    "alike": {"images_per_row": [2, 2], "texts": [4, 4], "sizes": [(32, 32)]},
    "video": {"images_per_row": [0], "videos_per_row": [2]},
    "both": {"images_per_row": [1], "videos_per_row": [1]},
}
COMMONEST = (("greedy", "single"), ("greedy", "video"))
#: Every strategy in the most common modes, and one in all. For several answers, only images are repeated.
CELLS = [
    (name, case, mode, batch)
    for name in STRATEGIES
    for case in COMPACT_ONLY
    for mode in MODES
    for batch in BATCHES
    if (mode, batch) in COMMONEST or (name == ANYWHERE and (mode != "sampled" or batch in ("single", "alike")))
]
CASES = list(COMPACT_ONLY)


def served(name: str, case: str) -> tuple[Family, Any]:
    """Return the family and its model. If it does not offer what a strategy needs, check that patch() refuses, and skip
    the rest of the test."""
    model = model_of(case)
    refusal = refusal_of(name, adapter_for(model))
    if refusal is not None:
        with pytest.raises(UnsupportedError, match=refusal):
            tokenprune.patch(model, strategy_of(name), position_ids="compact")
        pytest.skip(f"refused: {case} cannot serve {name}")
    return COMPACT_ONLY[case], model


def expected_of(family: Family, model: Any, run: Run, reports: list[tokenprune.Report]) -> Tensor:
    """Return the logits of a sequence of only the kept tokens, numbered without gaps."""
    whole = run.whole(family)
    dropped = dropped_columns(whole["input_ids"], reports)
    run.position_ids = family.compact_ids(model, whole, dropped)
    with as_reported(model, whole["input_ids"], reports):
        return run.expected(family, model, dropped)


@pytest.mark.parametrize(("name", "case", "mode", "batch"), CELLS)
def test_dropping_equals_never_seen(name: str, case: str, mode: str, batch: str) -> None:
    family, model = served(name, case)
    settings = BATCHES[batch]
    inputs = family.prompt(**settings)
    with torch.no_grad(), tokenprune.patch(model, strategy_of(name), position_ids="compact") as handle:
        run = MODES[mode](family, model, inputs, settings["images_per_row"])
    report = handle.report
    assert report.contract == "never seen, compact"
    assert_close(run.logits, expected_of(family, model, run, [report]))
    for image in report.images:
        assert_within_budget(strategy_of(name), image)


@pytest.mark.parametrize("case", CASES)
def test_beams(case: str) -> None:
    family, model = served(ANYWHERE, case)
    inputs, n = family.prompt([2]), 2
    search = {"num_beams": n, "num_return_sequences": n, "do_sample": False, "max_new_tokens": STEPS}
    with torch.no_grad(), tokenprune.patch(model, strategy_of(ANYWHERE), position_ids="compact") as handle:
        out = model.generate(**inputs, **search, return_dict_in_generate=True, output_scores=True)
    answers = out.sequences[:, -STEPS:]
    run = Run(family.repeated(inputs, n, [2]), answers, torch.empty(n, STEPS, 1))
    expected = expected_of(family, model, run, [handle.report]).log_softmax(-1).gather(2, answers[..., None])[..., 0]
    assert_close(out.sequences_scores, expected.mean(1))
    assert answers[0].tolist() != answers[1].tolist()


@pytest.mark.parametrize("case", CASES)
def test_a_second_turn(case: str) -> None:
    """First with its own image, then with only text."""
    family, model = served(ANYWHERE, case)
    turns = [*(family.prompt([1], seed=seed, sizes=[(48, 32)]) for seed in (1, 2)), family.prompt([0], seed=3)]
    logits, reports, cache = [], [], None
    with torch.no_grad(), tokenprune.patch(model, strategy_of(ANYWHERE), position_ids="compact") as handle:
        for turn in turns:
            given = {key: turn[key] for key in turn if key != "attention_mask" and (turn.images or key == "input_ids")}
            out = model(**given, **{CACHE: cache}, use_cache=True)
            cache = out[CACHE]
            logits.append(out.logits[:, -1:])
            reports.append(handle.report)
    ids = torch.cat([turn["input_ids"] for turn in turns], 1)
    images = [image for turn in turns for image in turn.images]
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **family.join(images, [2])}
    dropped = dropped_columns(ids, reports[:2])
    with as_reported(model, ids, reports[:2]):
        expected = family.oracle(model, whole, dropped, family.compact_ids(model, whole, dropped))
    ends = torch.tensor([turn["input_ids"].shape[1] for turn in turns]).cumsum(0) - 1
    assert_close(torch.cat(logits, 1), expected[:, ends])


@pytest.mark.parametrize("case", CASES)
def test_keeping_all_is_bitwise_the_unpatched_model(case: str) -> None:
    _, model = served(ANYWHERE, case)
    inputs = COMPACT_ONLY[case].prompt([1, 2])
    with torch.no_grad():
        logits = model(**inputs).logits
        with tokenprune.patch(model, strategy_of(ANYWHERE, keep_ratio=1.0), position_ids="compact"):
            assert torch.equal(model(**inputs).logits, logits)


@pytest.mark.parametrize("case", CASES)
def test_text_only_is_bitwise_the_unpatched_model(case: str) -> None:
    _, model = served(ANYWHERE, case)
    inputs = COMPACT_ONLY[case].prompt([0, 0])
    with torch.no_grad():
        logits = model(**inputs).logits
        with tokenprune.patch(model, strategy_of(ANYWHERE), position_ids="compact"):
            assert torch.equal(model(**inputs).logits, logits)


@pytest.mark.parametrize("case", CASES)
def test_other_ids_are_refused(case: str) -> None:
    family, model = COMPACT_ONLY[case], model_of(case)
    assert family.refused is not None
    with pytest.raises(UnsupportedError, match=family.refused):
        tokenprune.patch(model, strategy_of(ANYWHERE))


@pytest.mark.parametrize("case", CASES)
def test_padding(case: str) -> None:
    """Padding shifts the blocks even without a patch. A batch that would still be padded after pruning is refused."""
    family, model = served(ANYWHERE, case)
    inputs = family.prompt([1, 2])
    refused = pytest.raises(PruningError, match=r"leaves \d+, \d+ tokens in the rows .* one prompt at a time")
    with torch.no_grad(), tokenprune.patch(model, strategy_of(ANYWHERE), position_ids="compact"), refused:
        model(**inputs)
    nothing = torch.zeros_like(inputs["input_ids"]).bool()
    ids = family.compact_ids(model, inputs, nothing)
    with torch.no_grad(), family.expectation("padding"):
        padded = model(**inputs, position_ids=ids).logits
        assert_close(padded[0, -1:], family.oracle(model, inputs, nothing, ids)[0, -1:])


@pytest.mark.parametrize("case", CASES)
def test_blocks_are_chosen(case: str) -> None:
    """The same weights answer differently with more blocks, so the indexer matters in the comparison."""
    inputs, answers = COMPACT_ONLY[case].prompt([2]), []
    more = {**COMPACT_ONLY[case].stored["text_config"], "index_topk_blocks": 100}
    for model in (model_of(case), MiniMaxM3(case, text_config=more).build()):
        with torch.no_grad(), tokenprune.patch(model, strategy_of(ANYWHERE), position_ids="compact"):
            answers.append(model(**inputs).logits[:, -1])
    assert (answers[0] - answers[1]).abs().max() > 1e-2
