"""Searches: their journal, their spaces, and AdaToken's."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import prompt
from optuna.storages.journal import JournalFileBackend

import tokenprune
from tokenprune import SettingError
from tokenprune.errors import DataError
from tokenprune.evals.search import adatoken
from tokenprune.evals.search.adatoken import LEAST, block_sums, calibrated, contributions, curve, remaining_shares
from tokenprune.evals.search.journal import finished, locked_study
from tokenprune.evals.search.space import SearchSpace
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.tokens import Layout
from tokenprune.tokens.cells import grid_cells


def test_a_full_disk_is_named_and_the_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def search() -> None:
        with locked_study(path, {}) as study:
            study.tell(study.ask(), 0.5)
            monkeypatch.setattr(JournalFileBackend, "append_logs", full)
            study.ask()

    path = tmp_path / "trials.log"
    with pytest.raises(DataError, match=r"trials\.log: cannot be written: No space left"):
        search()
    monkeypatch.undo()
    with locked_study(path, {}) as study:
        assert study.best_value == 0.5


@pytest.mark.parametrize("after_the_last_trial", [False, True])
@pytest.mark.parametrize("folder_too", [False, True])
def test_a_deleted_journal_is_noticed_and_nothing_is_lost(
    after_the_last_trial: bool, folder_too: bool, tmp_path: Path
) -> None:
    def search() -> None:
        with locked_study(path, {"seed": 1}) as study:
            study.tell(study.ask(), 0.5)
            path.unlink()
            if folder_too:
                path.parent.rmdir()
            if not after_the_last_trial:
                study.tell(study.ask(), 0.75)

    path = tmp_path / "run" / "settings.journal"
    with pytest.raises(DataError, match=r"settings\.journal: was deleted while .* repeat the command to go on"):
        search()
    with locked_study(path, {"seed": 1}) as study:
        assert [trial.value for trial in finished(study)] == [0.5]


def test_a_replaced_journal_is_left_alone(tmp_path: Path) -> None:
    def search() -> None:
        with locked_study(path, {}) as study:
            study.tell(study.ask(), 0.5)
            path.unlink()
            path.write_text("mine")
            study.ask()

    path = tmp_path / "settings.journal"
    with pytest.raises(DataError, match=r"settings\.journal: was replaced while .* Name another --output"):
        search()
    assert path.read_text() == "mine"


# Every point of the search box is a VFlowOpt that spends exactly the budget.


def box_of(keep_ratio: float, n_layers: int = 28, **settings: Any) -> SearchSpace:
    return SearchSpace(VFlowOpt(keep_ratio=keep_ratio, **settings), n_layers, 27, 45.0)


def shares(strategy: VFlowOpt, n_layers: int) -> tuple[float, float, float]:
    second, third = strategy.stages(n_layers)
    assert second.keep_ratio is not None
    assert third.keep_ratio is not None
    return strategy.entering, second.keep_ratio, third.keep_ratio


@pytest.mark.parametrize("n_layers", [3, 5, 6, 28, 32])
@pytest.mark.parametrize("keep_ratio", [0.02, 0.1, 0.25, 0.5, 0.7, 0.9])
def test_every_point_spends_the_budget(keep_ratio: float, n_layers: int) -> None:
    box, third = box_of(keep_ratio, n_layers), n_layers // 3
    for first in (0.0, 0.3, 1.0):
        for place in (0.0, 0.5, 1.0):
            low, high = box.sides["first"]
            point = {"first": low + first * (high - low), "second_place": place, "threshold": 9.0}
            one, two, three = shares(box.strategy(point), n_layers)
            average = ((one + two) * third + three * (n_layers - 2 * third)) / n_layers
            assert average == pytest.approx(keep_ratio)
            assert 1 >= one >= two - 1e-9 >= three - 2e-9
            assert three >= 0.1 * keep_ratio - 1e-9


def test_the_box_reaches_as_far_as_the_papers() -> None:
    box = box_of(0.25)
    assert box.sides == {
        "threshold": (0, 45), "first": (0.25, 0.375), "second_place": (0, 1), "alpha": (-1, 1), "cell": (1, 27)
    }  # fmt: skip
    corner = box.strategy({"first": 0.375, "second_place": 1.0, "threshold": 50.0, "alpha": 0.0, "cell": 3.0})
    assert shares(corner, 28) == pytest.approx((0.375, 0.375, 0.025))


@pytest.mark.parametrize(
    ("keep_ratio", "first", "second"), [(0.5, 0.7233, 0.7487), (0.25, 0.2651, 0.9833), (0.1, 0.1166, 1.0)]
)
def test_released_settings_are_points(keep_ratio: float, first: float, second: float) -> None:
    box = box_of(keep_ratio)
    released = replace(box.base, first=first, second=second, threshold=34.76, cell=15.581)
    found = box.strategy(box.point(released))
    assert (found.first, found.second) == pytest.approx((first, second))
    assert (found.threshold, found.cell, found.alpha) == (34.76, 15.581, 0.0)


def test_a_cell_of_one_token_merges_nothing() -> None:
    """It is the lower end of the range, because the best cells of a small grid can be that small."""
    box = replace(box_of(0.25), grid_side=2)
    assert box.sides["cell"] == (1, 2)
    lowest = box.strategy(box.point(replace(box.base, cell=1.0)))
    assert lowest.cell is not None
    assert lowest.cell == 1.0
    cells, n_cells = grid_cells(Layout.raster((1, 2, 2)), lowest.cell)
    assert n_cells == len(set(cells.tolist())) == 4


def test_what_lies_outside_is_drawn_in() -> None:
    box = SearchSpace(VFlowOpt(keep_ratio=0.1), 28, 6, 2.5)
    assert box.point(box.base)["threshold"] == 2.5  # either has no anchor


def test_what_the_base_leaves_out_is_not_searched() -> None:
    assert set(box_of(0.1, progressive=False).sides) == {"threshold", "alpha", "cell"}
    assert set(box_of(0.1, recycle=False).sides) == {"threshold", "alpha", "first", "second_place"}
    assert "alpha" not in replace(box_of(0.1), colors=False).sides
    assert "cell" not in replace(box_of(0.1), grid_side=1).sides
    flat = box_of(0.1, progressive=False).strategy({"threshold": 1.0, "alpha": 0.0, "cell": 2.0})
    assert (flat.entering, flat.stages(28)) == (0.1, ())


def test_boxes_that_hold_nothing() -> None:
    with pytest.raises(SettingError, match="keep_ratio=1 keeps everything"):
        box_of(1.0)
    with pytest.raises(SettingError, match="2 layers has no thirds"):
        box_of(0.5, 2)
    box_of(0.5, 2, progressive=False)


# AdaToken's calibration: block sums against whole attention maps, and a curve with a known answer.


def test_block_sums_are_those_of_the_models_own_maps(llava: Any) -> None:
    inputs = prompt([1])
    with tokenprune.probe(llava, decoder_layers=[0, 1]) as seen:
        (image,) = seen.run(**inputs)
        found = [block_sums(image.text_attention[layer]) for layer in (0, 1)]
    visual = image.text_attention[0].visual
    first, last = int(visual[0]), int(visual[-1])
    implementation = llava.config._attn_implementation
    llava.set_attn_implementation("eager")
    with torch.no_grad():
        maps = llava(**inputs, output_attentions=True).attentions
    llava.set_attn_implementation(implementation)
    for sums, heads in zip(found, maps, strict=False):
        whole = heads[0].mean(0)
        inner = slice(first, last + 1)
        expected = (whole[inner, inner].sum(), whole[inner, :first].sum(), whole[last + 1 :, inner].sum())
        torch.testing.assert_close(torch.tensor(sums), torch.stack(expected))


def test_contributions_by_hand() -> None:
    """Within images 10, 20 and 0, between them 0, 10 and 30. Gathered: 10 + 14.6 = 24.6 twice. Layer 1: 8 + 3 + 7.38 =
    18.38; layer 2: 0 + 9 + 7.38 = 16.38."""
    assert contributions([10.0, 20.0, 0.0], [0.0, 10.0, 30.0]) == [1.0, 0.0]
    assert contributions([10.0, 20.0, 0.0, 20.0], [0.0, 10.0, 30.0, 5.0]) == pytest.approx(
        [2 / (2 + 2.88), 0, 1], abs=1e-9
    )
    assert contributions([1.0, 0.0, 0.0], [0.0, 0.0, 0.0]) == [0.0, 0.0]


@pytest.mark.parametrize("rate", [-0.3, 0.0, 0.05, 0.4, 1.7])
def test_a_curve_of_the_form_is_found_again(rate: float) -> None:
    layers = np.arange(1, 32, dtype=float)
    target = curve(layers, rate, 32)
    assert target[0] == 1
    assert curve(np.array([32.0]), rate, 32)[0] == pytest.approx(LEAST)
    assert remaining_shares(list(target), 32) == pytest.approx(list(target), abs=1e-4)


def test_stages_that_leave_every_token_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With six layers and five stages. The share at a layer is that held after the previous layer."""
    held = [1.0, 0.99996, 0.75, 0.5, 0.20004]
    monkeypatch.setattr(adatoken, "attention_sums", lambda *given: ([1.0] * 6, [1.0] * 6))
    monkeypatch.setattr(adatoken, "remaining_shares", lambda *given: np.array(held))
    strategy = calibrated(None, None, [], 5)
    assert strategy.schedule == ((3, 0.75), (4, 0.5), (5, 0.2))
    assert strategy.keep_ratio == pytest.approx((3 + 0.75 + 0.5 + 0.2) / 6)
    held[:] = [1.0] * 5
    with pytest.raises(SettingError, match="up to layer 5 of 6, this model's attention needs all visual tokens"):
        calibrated(None, None, [], 5)
