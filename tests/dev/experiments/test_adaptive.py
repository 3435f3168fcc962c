"""Adaptive budgets against fixed ones: the same average, the same questions, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import saved
from helpers.files.search import deep_llava, write_scenes

from tokenprune import SettingError
from tokenprune.evals.dev.experiments.adaptive import main
from tokenprune.evals.dev.tables.accuracy.adaptive import table
from tokenprune.evals.dev.tables.accuracy.tune_splits import table as splits_table


def test_the_command(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 19)
    model, output, file = saved(deep_llava(), tmp_path / "model"), tmp_path / "run", tmp_path / "records.jsonl"
    options = ["--model", model, "--data", str(tmp_path / "scenes"), "--output", str(output), "--table", str(file)]
    options += ["--image", str(tmp_path / "image.png"), "--strategy", "fopru:score=cls", "--mass", "0.2", "0.4"]
    main(options)
    unpruned, *records = [json.loads(line) for line in file.read_text().splitlines()]
    assert (unpruned["strategy"], unpruned["n"], unpruned["tokens"]) == ("unpruned", 20, 36)
    assert [one["mass"] for one in records] == [0.2, 0.4]
    for one in records:
        adaptive, fixed = one["adaptive"], one["fixed"]
        assert one["n"] == 20
        assert adaptive["fewest"] <= adaptive["tokens"] <= adaptive["most"] <= round(0.6 * 36)
        assert fixed["tokens"] == round(fixed["tokens"])
        assert abs(fixed["tokens"] - adaptive["tokens"]) <= 0.5
        assert one["difference"]["points"] == adaptive["accuracy"] - fixed["accuracy"]
    assert records[0]["adaptive"]["tokens"] < records[1]["adaptive"]["tokens"]
    assert (tmp_path / "image.png").stat().st_size > 10_000
    answers = (output / "answers.jsonl").read_text()
    assert len(answers.splitlines()) == 5 * 20
    main(options)  # all answers already exist
    assert (output / "answers.jsonl").read_text() == answers
    with pytest.raises(SettingError, match=r"identity\.json: holds another run, with rec\.questions=20 and not rec"):
        main([*options, "--limit", "10"])


def test_the_table_by_hand() -> None:
    share = {"n": 200, "accuracy": 0.5, "interval": [0.4, 0.6]}
    record: dict[str, Any] = {
        "strategy": "fopru",
        "mass": 0.5,
        "task": "rec",
        "n": 200,
        "fixed": {**share, "tokens": 40},
    }
    record["adaptive"] = {**share, "tokens": 40.25, "accuracy": 0.55, "fewest": 13, "most": 90}
    record["difference"] = {"points": 0.05, "interval": [-0.01, 0.11], "p": 0.125}
    lines = table([{"strategy": "unpruned", "task": "rec", **share, "tokens": 256}, record]).lines
    assert lines[0] == ["unpruned", "", "REC", "200", "256", "", "", "50.0 [40, 60]", ""]
    assert lines[1][:5] == ["`fopru`", "0.5", "REC", "200", "40.2 [13, 90]"]
    assert lines[1][5:] == ["55.0 [40, 60]", "40", "50.0 [40, 60]", "+5.0 [-1.0, +11.0], p = 0.12"]


def test_the_table_of_splits_by_hand() -> None:
    kept = {"bound": 3.0, "setting": "x", "cost": 0.5, "surely_above": False}
    outcomes = [
        {**kept, "points": 1.0, "above": False},
        {**kept, "points": 4.0, "above": True},
        {"bound": 3.0, "setting": None},
        {"bound": 1.0, "setting": None},
    ]
    three, one = splits_table(outcomes).lines
    assert three == ["3", "2 of 3", "50%", "+2.5", "+4.0", "1", "0"]
    assert one[:3] == ["1", "0 of 1", "\N{EN DASH}"]
