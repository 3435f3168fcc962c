"""The time of selection alone: all stages of every strategy that needs only an image are timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tokenprune.evals.dev.experiments.selection import images
from tokenprune.evals.dev.tables.speed.selection import table


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIDE": 6, "WIDTH": 32, "HEADS": 2, "HEAD_WIDTH": 8, "PIXELS": 28, "AFTER": 9}.items():
        monkeypatch.setattr(images, name, value)


@pytest.mark.usefixtures("small")
def test_every_strategy_that_an_image_can_serve(tmp_path: Path) -> None:
    file, before = tmp_path / "new" / "selection.jsonl", torch.get_num_threads()
    images.main(["--rounds", "2", "--output", str(file)])
    torch.set_num_threads(before)
    rows = {row["strategy"]: row for row in map(json.loads, file.read_text().splitlines())}
    assert {"mosaic", "nuwa", "scope", "holov", "prunesid", "dart", "ivcprune", "adatoken:keep_ratio=0.5"} <= set(rows)
    assert not {"flowcut", "tome", "pixelprune", "evs"} & set(rows)
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows.values())
    assert rows["scope"]["n_left"] == rows["dart"]["n_left"] == 9
    assert max(rows[name]["n_left"] for name in ("nuwa", "pyramiddrop", "adatoken:keep_ratio=0.5")) < 9  # at the end


def test_the_fastest_is_first() -> None:
    rows = [
        {"strategy": "scope", "n_left": 144, "seconds": [0.5, 0.02, 0.01]},
        {"strategy": "grid", "n_left": 144, "seconds": [0.003, 0.001, 0.002]},
    ]
    assert str(table(rows)).splitlines()[2:] == ["| `grid` | 144 | 2.0 ms |", "| `scope` | 144 | 20.0 ms |"]
