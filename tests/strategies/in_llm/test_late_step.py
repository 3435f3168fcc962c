"""LateStep: how several steps reach a budget, computed by hand."""

from __future__ import annotations

import pytest
import torch

from tokenprune import LateStep, SettingError
from tokenprune.strategy import DenoisingStage
from tokenprune.tokens import StepTokens


def test_each_step_leaves_the_same_share_of_what_was_left() -> None:
    stages = LateStep(keep_ratio=0.125, steps=(4, 8, 12)).step_stages
    assert [stage.step for stage in stages] == [4, 8, 12]
    assert [stage.keep_ratio for stage in stages] == pytest.approx([0.5, 0.25, 0.125])


def test_a_single_step_has_the_whole_budget() -> None:
    assert LateStep(keep_ratio=0.3).step_stages == (DenoisingStage(8, 0.3),)
    assert LateStep(keep=9, steps=2).step_stages == (DenoisingStage(2, keep=9),)


def test_the_most_attended_are_read_and_of_equal_ones_the_first() -> None:
    """A third of six visual tokens, out of the four that are left."""
    tokens = StepTokens(torch.tensor([0.1, 0.4, 0.2, 0.2]), torch.tensor([0, 2, 3, 5]), 6)
    strategy = LateStep(keep_ratio=1 / 3, layer=-2)
    (stage,) = strategy.step_stages
    assert strategy.select_in_step(stage, tokens).kept.tolist() == [1, 2]
    assert strategy.canvas_layer == -2


@pytest.mark.parametrize("steps", [0, (), (0, 3), (8, 4), (4, 4)])
def test_steps_that_cannot_be(steps: int | tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match=r"LateStep: steps=.* does not name ascending denoising steps from 1 on"):
        LateStep(steps=steps)


def test_a_count_is_of_one_step() -> None:
    with pytest.raises(SettingError, match=r"several steps need a ratio, not a count"):
        LateStep(keep=4, steps=(1, 2))
    assert LateStep(keep=4, steps=(1,)).step_stages == (DenoisingStage(1, keep=4),)
