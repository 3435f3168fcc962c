"""All runs of one report must be of the same model."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import saved, write_vqav2
from helpers.files.rows import row
from helpers.tiny import tiny_llava

from tokenprune.errors import DataError
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.report.report import read
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage.results_io import to_line
from tokenprune.evals.storage.run_folder import RunFolder


def run(path: Path, weights: str, dtype: str = "float32", **about: str) -> Path:
    """Write a finished run of a model in a folder `merged`, and return the run's folder."""
    path.mkdir()
    (path / "rows.jsonl").write_text(f"{to_line(row(path.name, 'original', 0.25, {'': [1.0, 0.0]}))}\n")
    identity = {"setups": {}, "data": {}, "model": {"weights": weights, "dtype": dtype}}
    (path / "run.json").write_text(json.dumps({"identity": identity, "about": {"model": "merged", **about}}))
    return path


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    first, second = run(tmp_path / "first", "a1"), run(tmp_path / "second", "b2")
    with pytest.raises(DataError, match=r"first and .*second: their models are both called 'merged', but have other"):
        read([first, second])


def test_weights_are_compared_in_one_dtype_and_where_they_are_known(tmp_path: Path) -> None:
    """An engine knows weights only by name."""
    first, half = run(tmp_path / "first", "a1"), run(tmp_path / "half", "c3", "bfloat16")
    assert len(read([first, half, run(tmp_path / "served", "merged", engine="vllm")])) == 3


def test_a_loaded_model_is_called_as_the_folder_that_it_is_from(tmp_path: Path) -> None:
    """So that one report can combine runs of the command and of a script."""
    model = saved(tiny_llava(), tmp_path / "merged")
    write_vqav2(tmp_path / "set", 1)
    named: dict[str, Any] = {"data": tmp_path / "set", "keep_ratios": [0.25], "position_ids": ["original"]}
    evaluate(model, output=tmp_path / "a", strategies=["grid"], baselines=["unpruned"], **named)
    evaluate(load_model(model), output=tmp_path / "b", strategies=["random"], baselines=[], **named)
    assert {one.model for one in read([tmp_path / "a", tmp_path / "b"])} == {"merged"}
    records = [RunFolder(tmp_path / name).record["about"] for name in "ab"]
    assert [one["loaded_from"] for one in records] == [model, model]
