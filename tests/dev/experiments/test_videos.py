"""Experiments with videos, and the tables of their results."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers.families import FAMILIES
from helpers.files.rows import row

from tokenprune.evals.dev.clips import kind_of
from tokenprune.evals.dev.experiments import videos
from tokenprune.evals.dev.experiments.selection import videos as video_selection
from tokenprune.evals.dev.tables.accuracy_and_speed.videos import (
    accuracy_table,
    by_kind,
    difference_table,
    growth_table,
    prefill_table,
)
from tokenprune.evals.models.bundled import CLIPS
from tokenprune.evals.report.table import NOTHING
from tokenprune.evals.storage.results import TaskResult

OPTIONS = {"shape": "tiny", "dtype": "float32", "tower_layers": 1, "rounds": 2}


def test_kinds_are_those_of_the_bundled_questions() -> None:
    questions = json.loads((CLIPS / "val_q.json").read_text())
    answers = [answer["answer"] for answer in json.loads((CLIPS / "val_a.json").read_text())]
    kinds = [kind_of(number) for number in range(len(questions))]
    assert Counter(kinds) == {"when": 70, "where": 140, "what": 70, "absent": 140}
    for kind, asked, answer in zip(kinds, questions, answers, strict=True):
        assert (kind == "absent") == (answer == "no")
        assert (kind == "what") == (asked["question"] == "what is this?")
    two = [set(kinds[begin : begin + 3]) for begin in range(3, len(kinds), 6)]  # every second clip has two objects
    assert two == [{"when", "where", "absent"}] * 70


def test_a_prefill_with_a_video_is_measured_beside_its_ideal() -> None:
    model = FAMILIES["llava-onevision"].build()
    options = Namespace(**OPTIONS, keep_ratio=[0.5], strategy=["evs", "fastvid"])
    lengths: list[int] = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    rows = list(videos.measured(model, 4, options, []))
    hook.remove()
    assert [row["strategy"] for row in rows] == ["unpruned", "ideal", "evs", "fastvid"]
    assert all(len(row["seconds"]) == 2 and row["peak_bytes"] > 0 for row in rows)
    again = videos.measured(model, 4, options, [row | {"device": "cpu"} for row in rows if row["strategy"] != "evs"])
    assert [row["strategy"] for row in again] == ["evs"]


def test_measuring_videos_resumes_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "build", lambda *arguments: FAMILIES["llava-onevision"].build())
    output = tmp_path / "new" / "videos.jsonl"
    command = ["--frames", "4", "--keep-ratio", "0.5", "--strategy", "evs", "--rounds", "1", "--output", str(output)]
    videos.main(command)
    whole = output.read_bytes()
    first, second, _ = whole.splitlines(keepends=True)
    output.write_bytes(first + second[:20])
    videos.main(command)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["strategy"] for row in rows] == ["unpruned", "ideal", "evs"]
    assert output.read_bytes().startswith(first)


def test_selection_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "new" / "selection.jsonl"
    words = ["--frames", "2", "4", "--strategy", "evs", "fastvid", "--keep-ratio", "0.25", "--rounds", "1"]
    before = torch.get_num_threads()
    video_selection.main([*words, "--output", str(file)])
    torch.set_num_threads(before)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["frames"], row["strategy"]) for row in rows] == [
        (n, name) for n in (2, 4) for name in ("evs", "fastvid")
    ]
    assert [row["n_kept"] for row in rows] == [98, 98, 196, 196]
    assert all(row["peak_bytes"] > 0 < row["seconds"][0] for row in rows)
    (first, *_) = str(growth_table(rows, lambda row: f"{row['n_kept']} tokens")).splitlines()[2:]
    assert first == "| evs | 25% | 98 tokens | 196 tokens |"


def test_prefills_are_compared_with_the_unpruned_model_and_the_ideal() -> None:
    def timed(strategy: str, keep_ratio: float, seconds: list[float], peak: float) -> dict[str, object]:
        return {"frames": 8, "strategy": strategy, "keep_ratio": keep_ratio, "seconds": seconds, "peak_bytes": peak}

    rows = [
        timed("unpruned", 1.0, [8, 2, 4], 4e8),
        timed("ideal", 0.5, [1, 1, 1], 1e8),
        timed("evs", 0.5, [2, 2, 3], 2e8),
    ]
    *_, unpruned, _, evs = str(prefill_table(rows)).splitlines()
    assert unpruned == f"| 8 | 100% | unpruned | 4.00 (2.00, 8.00) | 1.00 | {NOTHING} | 400 MB | 1.00 |"
    assert evs == "| 8 | 50% | evs | 2.00 (2.00, 3.00) | 0.50 | 2.00 | 200 MB | 0.50 |"


@pytest.fixture
def rows() -> list[TaskResult]:
    """Return rows on twelve questions about four clips: the unpruned model is always right, Random is wrong about what
    appears, and EVS is right only about "where"."""
    kinds = [kind_of(number) for number in range(12)]
    images = {"val": [number // 3 for number in range(12)]}
    return [
        by_kind(row(strategy, "original", ratio, {"val": [float(kind != wrong) for kind in kinds]}, images=images))
        for strategy, ratio, wrong in (("unpruned", 1.0, ""), ("Random", 0.4, "when"), ("EVS", 0.4, "where"))
    ]


def test_accuracy_is_shown_by_kind(rows: list[TaskResult]) -> None:
    head, _, unpruned, random, evs = str(accuracy_table(rows)).splitlines()
    assert "all (n = 12) | when (n = 2) | where (n = 4) | what (n = 2) | absent (n = 4)" in head
    assert [cell.split()[0] for cell in random.split(" | ")[4:]] == ["83.3", "0.0", "100.0", "100.0", "100.0"]
    assert [cell.split()[0] for cell in evs.split(" | ")[4:]] == ["66.7", "100.0", "0.0", "100.0", "100.0"]
    assert unpruned.split(" | ")[4].startswith("100.0")


def test_differences_are_those_to_the_unpruned_model_and_to_random_tokens(rows: list[TaskResult]) -> None:
    *_, random, evs = str(difference_table(rows)).splitlines()
    assert [cell.split()[0] for cell in evs.strip("| ").split(" | ")[2:]] == ["-33.3", "-16.7", "+100.0"]
    assert random.endswith(f"| {NOTHING} | {NOTHING} |")
