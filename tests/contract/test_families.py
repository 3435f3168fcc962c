"""The test families of the contract matrix are themselves correct, on unpatched models."""

from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.modes import cells_of, run_cell
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


@pytest.mark.parametrize(
    ("name", "mode", "batch"), [(name, *cell) for name, family in FAMILIES.items() for cell in cells_of(family)]
)
def test_every_mode_gives_what_the_oracle_gives(name: str, mode: str, batch: str) -> None:
    family, model = FAMILIES[name], model_of(name)
    with family.expectation(mode):
        run = run_cell(family, model, mode, batch)
        nothing = torch.zeros_like(run.whole(family)["input_ids"]).bool()
        expected = run.expected(family, model, nothing)
        assert_close(run.logits, expected)
        blind = run.expected(family, model, family.visual(run.whole(family)["input_ids"]))
        assert (blind - expected).abs().max() > 1e-2  # images matter


@pytest.mark.parametrize("name", FAMILIES)
def test_picking_and_repeating_rows(name: str) -> None:
    family, per_row = FAMILIES[name], [1, 2]
    inputs = family.prompt(per_row)
    again = family.rows(inputs, [0, 1], per_row)
    assert again.keys() == inputs.keys()
    assert all(torch.equal(torch.as_tensor(again[key]), torch.as_tensor(inputs[key])) for key in inputs)
    assert len(family.repeated(inputs, 2, per_row)["input_ids"]) == 4
