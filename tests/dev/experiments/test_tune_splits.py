"""The check whether a bound holds on hidden questions, on answers with known losses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.files.evals import saved
from helpers.files.search import deep_llava, scenes, write_scenes

from tokenprune import DataError, FoPru
from tokenprune.evals.dev.experiments.tune_splits import main, outcome, split
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.setups import Pruned, Setup
from tokenprune.evals.storage.answers import AnswerKey
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tune.questions import Half
from tokenprune.evals.tune.scoring import UNPRUNED

N = 300


def setup(ratio: float) -> Pruned:
    return Pruned(label="FoPru", keep_ratio=ratio, strategy=FoPru(keep_ratio=ratio))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Question]:
    return scenes(tmp_path_factory.mktemp("scenes"), N)


COSTS = {setup(ratio / 10).key: ratio / 10 for ratio in range(1, 10)}


class Known:
    """A Scorer with given scores."""

    def __init__(self, scores: dict[AnswerKey, float]) -> None:
        self.of = scores

    def ask(self, setups: Sequence[Setup], half: Half) -> None:
        pass

    def scores(self, setup: Setup, questions: Sequence[Question]) -> list[float]:
        return [self.of[AnswerKey.of(one, setup.key)] for one in questions]


def known(questions: Sequence[Question], losses: Mapping[float, float], seed: int) -> Known:
    """Return scores of the unpruned model, all right, and of setups that lose each question with a known
    probability."""
    rng, scores = np.random.default_rng(seed), {}
    for setting, loss in [(UNPRUNED, 0.0), *((setup(ratio), loss) for ratio, loss in losses.items())]:
        for one in questions:
            scores[AnswerKey.of(one, setting.key)] = float(rng.random() >= loss)
    return Known(scores)


def test_the_hidden_third_shares_no_image(questions: Sequence[Question]) -> None:
    shown, hidden = split(questions, 3)
    assert len(hidden) == N // 3
    assert sorted(one.id for one in (*shown, *hidden)) == sorted(one.id for one in questions)
    assert not {one.images for one in shown} & {one.images for one in hidden}
    assert split(questions, 4) != (shown, hidden)


def test_the_cheapest_that_keeps_the_bound_is_recommended(questions: Sequence[Question]) -> None:
    losses = {0.9: 0.0, 0.5: 0.02, 0.3: 0.3}
    found = outcome(known(questions, losses, 0), COSTS, [setup(ratio) for ratio in losses], questions, 10.0, seed=1)
    assert found["setting"] == str(setup(0.5).key)
    assert found["cost"] == 0.5
    assert found["n_hidden"] == N // 3
    assert found["interval"][0] <= found["points"] < 10
    assert not found["above"]
    assert outcome(known(questions, {0.3: 0.3}, 0), COSTS, [setup(0.3)], questions, 10.0, 1)["setting"] is None


def test_a_promise_that_does_not_hold_is_seen(questions: Sequence[Question]) -> None:
    """A setup that loses no visible question and half of the hidden ones."""
    hidden = {one.id for one in split(questions, 1)[1]}
    lucky = known(questions, {0.5: 0.0}, 0)
    for number, key in enumerate(key for key in lucky.of if key.id in hidden and key.key == setup(0.5).key):
        lucky.of[key] = float(number % 2)
    found = outcome(lucky, COSTS, [setup(0.5)], questions, 10.0, seed=1)
    assert found["points"] == 50
    assert found["above"]
    assert found["surely_above"]


def test_what_loses_as_much_as_the_bound_is_seldom_recommended(questions: Sequence[Question]) -> None:
    """Of eight setups whose true loss equals the bound, the luckiest in the search is not recommended."""
    ratios = [number / 10 for number in range(1, 9)]
    grid = [setup(ratio) for ratio in ratios]
    drawn = [
        outcome(known(questions, dict.fromkeys(ratios, 0.1), n), COSTS, grid, questions, 10.0, n) for n in range(20)
    ]
    assert sum(one["setting"] is not None for one in drawn) <= 3  # more than three of 20 at 5 %: 1.6 % of all draws


def test_the_command_asks_once_and_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path / "scenes", 47)
    model = saved(deep_llava(), tmp_path / "model")
    output, file = tmp_path / "run", tmp_path / "outcomes.jsonl"
    options = ["--strategy", "fopru", "--keep-ratio", "0.5", "0.9", "--bound", "30", "--seeds", "4"]
    main(
        ["--model", model, "--data", str(tmp_path / "scenes"), "--output", str(output), "--table", str(file), *options]
    )
    assert len((output / "answers.jsonl").read_text().splitlines()) == 3 * 48
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["seed"] for one in lines] == [0, 1, 2, 3]
    assert {one["n_hidden"] for one in lines} == {16}
    assert "30 points: 4 of 4 recommended; 0 above the bound, 0 surely" in capsys.readouterr().out


def test_stored_rows_stand_for_answers(tmp_path: Path) -> None:
    """The outcome is the same with stored rows as by asking. Rows of other questions are refused."""
    write_scenes(tmp_path / "scenes", 47)
    model = saved(deep_llava(), tmp_path / "model")
    data = tmp_path / "scenes"
    common: Any = {"model": model, "data": data, "position_ids": ["original"], "dtype": "bfloat16"}
    evaluate(**common, output=tmp_path / "eval", strategies=["fopru"], keep_ratios=[0.5, 0.9], baselines=[])
    rows = tmp_path / "eval" / "rows.jsonl"

    def outcomes(name: str, *options: str) -> list[Any]:
        file = tmp_path / name
        folders = ["--model", model, "--data", str(data), "--output", str(tmp_path / f"{name} run")]
        main([*folders, "--table", str(file), "--bound", "30", "--seeds", "3", *options])
        return [json.loads(line) for line in file.read_text().splitlines()]

    asked = outcomes("asked", "--strategy", "fopru", "--keep-ratio", "0.5", "0.9")
    stored = outcomes("stored", "--rows", str(rows), "--strategy")
    assert stored == asked
    assert len((tmp_path / "stored run" / "answers.jsonl").read_text().splitlines()) == 48  # the unpruned model's
    with pytest.raises(DataError, match="its row is about other questions of rec: see --limit and --apart"):
        outcomes("other", "--rows", str(rows), "--strategy", "--limit", "40")
