"""How strategies are called: without autocast, and with errors that say what they must return."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tokenprune import Grid, PruningError, Selection, SettingError
from tokenprune.strategy import Strategy
from tokenprune.strategy.base import check_is_selection, strategy_call
from tokenprune.strategy.staged import check_layers, valid_interval
from tokenprune.tokens import VisualTokens

GRID = Grid(keep=2)


def test_it_computes_without_autocast() -> None:
    one = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with strategy_call(GRID, "select", one):
            exact = one @ one
        assert (one @ one).dtype == torch.bfloat16
    assert torch.equal(exact, one @ one)


def test_what_it_changed_in_place_is_an_error_where_one_can_tell() -> None:
    given = torch.zeros(2)
    message = r"^Grid\.select changed tensors of its tokens in place"
    with pytest.raises(PruningError, match=message), strategy_call(GRID, "select", given):
        given += 1
    with torch.inference_mode():
        given = torch.zeros(2)
        with strategy_call(GRID, "select", given):
            given += 1


def test_errors_begin_with_its_name_once() -> None:
    for said, expected in (("no", "Grid.select: no"), ("Grid: no", "Grid: no"), ("Grid.budget: no", "Grid.budget: no")):
        with pytest.raises(PruningError) as error, strategy_call(GRID, "select", torch.zeros(2)):
            raise PruningError(said)
        assert str(error.value) == expected


@pytest.mark.parametrize(
    "error", [PruningError("kept must be unique"), ValueError("cannot convert float NaN to integer")]
)
def test_errors_because_of_nan_say_so(error: Exception) -> None:
    given = torch.tensor([0.0, torch.nan])
    message = r"^Grid\.select: what it was given has NaN .*float32"
    with pytest.raises(PruningError, match=message), strategy_call(GRID, "select", torch.zeros(2), given):
        raise error
    with pytest.raises(type(error), match=str(error)), strategy_call(GRID, "select", torch.zeros(2)):
        raise error


def test_a_selection_over_as_many_tokens() -> None:
    check_is_selection(GRID, "select", Selection(torch.tensor([1]), 4), 4)
    with pytest.raises(PruningError, match=r"^Grid\.select returned a Selection over 3; .* over 4 visual tokens"):
        check_is_selection(GRID, "select", Selection(torch.tensor([1]), 3), 4)
    with pytest.raises(PruningError, match=r"^Grid\.select returned Tensor; .* over the 4 visual tokens of tile 1: "):
        check_is_selection(GRID, "select", torch.tensor([1]), 4, "of tile 1")


@pytest.mark.parametrize("returned", [3, (1.5,), ("2",), (True,), None])
def test_numbers_of_layers(returned: Any) -> None:
    check_layers(GRID, "tower_layers", (2, 5))
    with pytest.raises(SettingError, match=r"^Grid\.tower_layers returned .*must return a tuple with the numbers of"):
        check_layers(GRID, "tower_layers", returned)


@dataclass(frozen=True)
class Every(Strategy):
    steps: Any = 1

    @property
    def recompute_every(self) -> int:
        return self.steps

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("steps", [0, -1, 1.5, True, None])
def test_an_interval_of_steps(steps: Any) -> None:
    assert valid_interval(Every(steps=5)) == 5
    with pytest.raises(SettingError, match=r"^Every\.recompute_every is .*a number of denoising steps, 1 or more"):
        valid_interval(Every(steps=steps))
