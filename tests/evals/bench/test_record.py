"""A file of the bench that rounds are added to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune.errors import SettingError
from tokenprune.evals.bench import measuring
from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.bench.record import Record, about
from tokenprune.evals.run.setups import Pruned

GRID = [Pruned(label="Grid", keep_ratio=0.25, strategy=tokenprune.Grid(0.25))]


def test_further_rounds_of_generate_begin_with_an_untimed_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first call allocates and, on a GPU, loads kernels: also in a process that adds rounds to a file."""
    model, path, calls = tiny_llava(), tmp_path / "bench.json", list[int]()

    def generated(*_: Any) -> dict[str, float]:
        calls.append(1)
        return {"generate": 1.0}

    monkeypatch.setattr(measuring, "generated", generated)
    for _ in range(2):
        record = Record.open(path, about(model, "tiny", "sdpa", 24))
        measuring.measure_throughput(model, prompts.random_prompt(model, 1), GRID, record, rounds=1, n_new=3)
    assert len(calls) == 2 * (2 + 2)  # of the unpruned model and of Grid


def test_rounds_of_another_process_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    first, second = (Record.open(path, {"model": "tiny"}) for _ in range(2))
    first.add_round(1, {})
    first.write()
    first.write()
    second.add_round(1, {})
    with pytest.raises(SettingError, match=r"bench\.json: another benchmark has written it .* began\. Wait"):
        second.write()
    assert len(Record.read(path).rounds) == 1
    path.unlink()
    first.write()  # deleted by the user, it is there again
    third = Record.open(path, {"model": "tiny"})
    third.add_round(1, {})
    third.write()
    assert len(Record.read(path).rounds) == 2
