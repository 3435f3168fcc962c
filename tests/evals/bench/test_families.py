"""Families whose images, features or position IDs are unlike LLaVA's can be timed, beside their ideal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.families import FAMILIES

import tokenprune
from tokenprune.evals.bench import ideal
from tokenprune.evals.bench.cases import cases
from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.bench.schedule import Schedule
from tokenprune.evals.bench.timing.clock import PHASES, Seconds, phases
from tokenprune.evals.run.setups import pruned_setups
from tokenprune.tokens import VisualTokens


class First(tokenprune.ScoreStrategy):
    def score(self, tokens: VisualTokens) -> torch.Tensor:
        return torch.arange(tokens.n_visual, 0, -1).float()


@pytest.mark.parametrize("name", ["internvl", "janus"])
def test_the_ideal_is_the_model_on_a_shorter_prompt(name: str) -> None:
    """An image is encoded as several tiles, or by the base model alone."""
    family = FAMILIES[name]
    model, inputs = family.build(), family.prompt([1, 1], texts=[5, 5], sizes=list(family.sizes[:1]))
    n_visual = prompts.n_visual(model, inputs)
    with torch.no_grad(), tokenprune.patch(model, First(keep=7), position_ids="compact"):
        patched = model(**inputs, logits_to_keep=1).logits
    with torch.no_grad():
        output = ideal.prefill(model, inputs, Schedule((7, 7)))
    assert prompts.features(model, inputs).shape[:2] == (2, n_visual)
    torch.testing.assert_close(output.logits, patched)


def timed(name: str) -> list[Seconds]:
    family: Any = FAMILIES[name]
    model, inputs = family.build(), family.prompt([1])
    found = []
    for case in cases(model, inputs, pruned_setups(["random"], [0.5], ["original"])):
        with case.patched():
            found.append(phases(model, case.prefill, case.n_columns))
    return found


def test_position_ids_of_four_components() -> None:
    assert all(tuple(seconds) == PHASES for seconds in timed("hunyuan-vl"))


def test_towers_between_whose_layers_nothing_is_dropped() -> None:
    assert all(tuple(seconds) == PHASES for seconds in timed("fast-vlm"))


def test_no_tower_is_not_timed() -> None:
    assert all(tuple(seconds) == PHASES[2:] for seconds in timed("emu3"))
