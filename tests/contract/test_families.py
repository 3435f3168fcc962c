"""The test families of the contract matrix are themselves correct, on unpatched models."""

from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.modes import BATCHES, VIDEO_BATCHES, cells_of, run_cell, video_batches_of
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES

FORWARDS: dict[str, dict[str, Any]] = {
    **BATCHES,
    "right-padded": {"images_per_row": [2, 1], "padding": "right"},
    "text": {"images_per_row": [0, 0]},
}
CASES = [(name, batch) for name, family in FAMILIES.items() for batch in [*FORWARDS, *video_batches_of(family)]]


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


def inputs_of(name: str, batch: str) -> dict[str, Any]:
    return FAMILIES[name].prompt(**{**FORWARDS, **VIDEO_BATCHES}[batch])


@pytest.mark.parametrize(("name", "batch"), CASES)
def test_the_oracle_that_drops_nothing_is_the_plain_forward(name: str, batch: str) -> None:
    family, model, inputs = FAMILIES[name], model_of(name), inputs_of(name, batch)
    with torch.no_grad():
        plain = model(**inputs, position_ids=family.position_ids(model, inputs), use_cache=False).logits
    real = inputs["attention_mask"].bool()
    oracle = family.oracle(model, inputs, torch.zeros_like(real))
    assert_close(oracle[real], plain[real])
    if family.visual(inputs["input_ids"]).any():
        blind = family.oracle(model, inputs, family.visual(inputs["input_ids"]))
        assert (blind[:, -1] - oracle[:, -1]).abs().max() > 1e-2  # images matter


@pytest.mark.parametrize(
    ("name", "mode", "batch"), [(name, *cell) for name, family in FAMILIES.items() for cell in cells_of(family)]
)
def test_every_mode_gives_what_the_oracle_gives(name: str, mode: str, batch: str) -> None:
    family, model = FAMILIES[name], model_of(name)
    with family.expectation(mode):
        run = run_cell(family, model, mode, batch)
        nothing = torch.zeros_like(run.whole(family)["input_ids"]).bool()
        assert_close(run.logits, run.expected(family, model, nothing))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_gives_what_its_rows_give(name: str) -> None:
    family, model, per_row = FAMILIES[name], model_of(name), [1, 2]
    inputs = family.prompt(per_row)
    together = family.oracle(model, inputs, torch.zeros_like(inputs["input_ids"]).bool())
    for row in range(2):
        one = family.rows(inputs, [row], per_row)
        real = one["attention_mask"][0].bool()
        for key in ("input_ids", "attention_mask", *family.token_types(one["input_ids"])):
            one[key] = one[key][:, real]
        with torch.no_grad():
            logits = model(**one, position_ids=family.position_ids(model, one), use_cache=False).logits
        with family.expectation("rows") if row else nullcontext():
            assert_close(logits[0], together[row, real])


@pytest.mark.parametrize("name", FAMILIES)
def test_picking_and_repeating_rows(name: str) -> None:
    family, per_row = FAMILIES[name], [1, 2]
    inputs = family.prompt(per_row)
    again = family.rows(inputs, [0, 1], per_row)
    assert again.keys() == inputs.keys()
    assert all(torch.equal(torch.as_tensor(again[key]), torch.as_tensor(inputs[key])) for key in inputs)
    assert len(family.repeated(inputs, 2, per_row)["input_ids"]) == 4
