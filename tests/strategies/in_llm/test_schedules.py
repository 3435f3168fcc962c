"""Schedules: what is left after each stage adds up to the budget."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers.models.staged import Deep

import tokenprune
from tokenprune import (
    AdaToken,
    AttentionMass,
    EfficientVLA,
    FastV,
    LateStep,
    Nuwa,
    PyramidDrop,
    SettingError,
    SparseVLM,
    Strategy,
    VFlowOpt,
)
from tokenprune.strategies.shared.recycling import recycle_by_cluster
from tokenprune.strategy import DenoisingStage, StagedStrategy
from tokenprune.tokens import StepTokens


@pytest.mark.parametrize(
    ("strategy", "n_layers", "expected"),
    [
        (FastV(keep_ratio=0.25), 32, [(2, 0.25)]),
        (FastV(keep_ratio=0.25, average=True), 28, [(2, 5 / 26)]),  # 7 = 2 + 26 share
        (EfficientVLA(keep_ratio=0.5, layer=3), 6, [(3, 0.5)]),
        # 32 average = 8 (1 + 0.5 + 0.25 + 0.125) = 15
        (PyramidDrop(keep_ratio=15 / 32), 32, [(8, 0.5), (16, 0.25), (24, 0.125)]),
        (PyramidDrop(keep_ratio=11 / 28, first=4), 28, [(4, 0.5), (12, 0.25), (20, 0.125)]),  # 4 + 8 (1/2 + 1/4 + 1/8)
        (SparseVLM(), 32, [(3, 309 / 576), (7, 204 / 576), (16, 113 / 576)]),
        (SparseVLM(keep_ratio=160 / 576), 32, [(3, 310.5 / 576), (7, 160.5 / 576), (16, 76 / 576)]),  # of 128 and 192
        (SparseVLM(keep_ratio=64 / 576), 12, [(1, 82 / 576), (3, 32 / 576), (6, 18 / 576)]),
        (SparseVLM(keep_ratio=32 / 576), 4, [(1, 16 / 576), (2, 9 / 576)]),  # half of 64's, without the first stage
        (AttentionMass(keep_ratio=0.5), 12, [(2, 0.5), (6, 0.5), (10, 0.5)]),
    ],
    ids=str,
)
def test_schedules(strategy: StagedStrategy, n_layers: int, expected: list[tuple[int, float]]) -> None:
    found = [(stage.layer, stage.keep_ratio) for stage in strategy.stages(n_layers)]
    assert [layer for layer, _ in found] == [layer for layer, _ in expected]
    for (_, share), (_, right) in zip(found, expected, strict=True):
        assert share == pytest.approx(right, abs=1e-9)


@pytest.mark.parametrize("n_layers", [6, 28, 32])
@pytest.mark.parametrize("keep_ratio", [0.4, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("strategy", [PyramidDrop, AdaToken, Nuwa, VFlowOpt])
def test_the_average_over_the_layers_is_the_keep_ratio(strategy: Any, keep_ratio: float, n_layers: int) -> None:
    strategy, n = strategy(keep_ratio=keep_ratio), 10**6
    counts = [strategy.budget(n)] * n_layers
    for stage in strategy.stages(n_layers):
        counts[stage.layer :] = [stage.budget(n)] * (n_layers - stage.layer)
    assert sum(counts) / n_layers / n == pytest.approx(keep_ratio, abs=1e-5)
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    ("n_tokens", "whole", "left"),
    [
        (192, (300, 200, 110), (309, 204, 113)),
        (128, (303, 110, 36), (312, 117, 39)),
        (96, (238, 48, 26), (249, 55, 27)),
        (64, (66, 30, 17), (82, 32, 18)),
    ],
)
def test_sparsevlm_has_the_released_schedules(n_tokens: int, whole: Sequence[int], left: Sequence[int]) -> None:
    """The released code's tables hold the tokens that are not merged. Those after each stage average, as its authors
    count, to what they are named after; and where the budget is what is left, as many are not merged."""
    stages, before = SparseVLM(keep_ratio=n_tokens / 576).stages(32), 576
    assert [stage.budget(576) for stage in stages] == list(left)
    assert (2 * 576 + 4 * left[0] + 9 * left[1] + 17 * left[2]) // 32 == n_tokens
    for stage, n_whole in zip(stages, whole, strict=True):
        scores = torch.arange(before, 0.0, -1)
        selection = recycle_by_cluster(scores, torch.arange(before), scores[:, None], stage.budget(576), 0.3, 0.1)
        assert int(selection.merged.sources.min()) == n_whole
        before = len(selection.kept)


@pytest.mark.parametrize("keep_ratio", [0.001, 0.05, 0.25, 0.5, 0.99, 1.0])
def test_sparsevlm_never_grows(keep_ratio: float) -> None:
    found = [stage.budget(576) for stage in SparseVLM(keep_ratio=keep_ratio).stages(32)]
    assert found == sorted(found, reverse=True)
    assert (found == [576] * 3) == (keep_ratio == 1)


def test_pyramiddrop_begins_earlier_where_the_average_is_low() -> None:
    for n_layers in (24, 28, 32):
        for keep_ratio in (0.42, 0.38, 0.3, 0.25, 0.1):
            stages = PyramidDrop(keep_ratio=keep_ratio).stages(n_layers)
            assert stages[0].keep_ratio >= 0.4 or stages[0].layer == 1
    assert [stage.layer for stage in PyramidDrop(keep_ratio=0.42).stages(32)] == [8, 16, 24]
    assert [stage.layer for stage in PyramidDrop(keep_ratio=0.25).stages(32)] == [1, 11, 22]


def test_depths_that_do_not_divide_evenly() -> None:
    assert [stage.layer for stage in PyramidDrop(keep_ratio=0.5).stages(30)] == [7, 15, 22]
    assert [stage.layer for stage in PyramidDrop(keep_ratio=0.5).stages(6)] == [1, 3, 4]
    assert [stage.layer for stage in PyramidDrop(keep_ratio=0.5, first=6).stages(6)] == [6]  # which `patch` rejects
    assert [stage.layer for stage in SparseVLM(keep_ratio=0.5).stages(80)] == [8, 18, 40]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            PyramidDrop(keep_ratio=0.25),
            r"0.25 is an average over 3 layers, and the 1 .* alone averages 0.333.* Use a higher keep_ratio, or a",
        ),
        (PyramidDrop(keep_ratio=0.5, first=2), "the 2 before the first stage see all"),
        (FastV(keep_ratio=0.25, average=True), "FastV: keep_ratio=0.25 is an average over 3 layers, and the 2 before"),
        (PyramidDrop(keep_ratio=0.5, first=4), r"PyramidDrop: stages at layers \[4\] do not ascend within 1..2"),
        (FastV(layer=7, average=True), r"FastV: stages at layers \[7\] do not ascend within 1..2"),
        (FastV(layer=3), r"FastV: stages at layers \[3\] do not ascend within 1..2"),
        (AttentionMass(layer=5), r"AttentionMass: stages at layers \[5\] do not ascend within 1..2"),
    ],
)
def test_schedules_that_a_shallow_model_cannot_have(strategy: Strategy, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tokenprune.patch(Deep("llava-clip").build(n_layers=3), strategy)


# LateStep: how several steps reach a budget, computed by hand.


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
