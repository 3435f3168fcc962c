"""An adapter is trained on other scenes than it is measured on, merged, and asked the same questions."""

import json
from pathlib import Path

import pytest
from helpers.files.evals import saved
from helpers.files.search import deep_llava, write_scenes

from tokenprune.evals.dev.experiments.adapting import main
from tokenprune.evals.dev.tables.accuracy.adapted import ADAPTED
from tokenprune.evals.storage.results import compare
from tokenprune.evals.storage.results_io import read


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, output, file = saved(deep_llava(), tmp_path / "model"), tmp_path / "run", tmp_path / "rows.jsonl"
    write_scenes(tmp_path / "scenes", 9)
    drawn = output / "12 scenes"  # as if they had been drawn
    write_scenes(drawn, 11)
    refs = json.loads((drawn / "refs(tiny).json").read_text())
    (drawn / "refs(tiny).json").write_text(json.dumps([{**one, "split": "train"} for one in refs]))
    (drawn / "annotations.json").write_text("")
    options = ["--sources", str(tmp_path / "none"), "--scenes", "12", "--model", model, "--output", str(output)]
    options += ["--data", str(tmp_path / "scenes"), "--rows", str(file), "--strategy", "fopru", "--keep-ratio", "0.5"]
    main([*options, "--steps", "3", "--batch", "4", "--rank", "2", "--learning-rate", "0.05"])
    rows = read([file])
    assert [(row.model == ADAPTED, row.strategy) for row in rows] == [
        (False, "unpruned"),
        (False, "FoPru"),
        (True, "unpruned"),
        (True, "FoPru"),
    ]
    assert all(row.n == 10 for row in rows)
    trained = [json.loads(line).get("training", {}).get("steps") for line in file.read_text().splitlines()]
    assert trained == [None, None, 3, 3]
    assert compare(rows[3], rows[1]).n == 10
    answers = [
        [json.loads(line)["text"] for line in (output / name / "answers.jsonl").read_text().splitlines()]
        for name in ("before", "after")
    ]
    assert answers[0] != answers[1]  # the adapter is in the merged weights
    assert "adapted, FoPru at 0.5: rec 0.0% of questions" in capsys.readouterr().out
