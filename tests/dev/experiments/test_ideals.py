"""Strategies are timed against their ideals, and an interrupted run resumes. Times are not tested."""

from pathlib import Path
from typing import Any

import pytest
from helpers.files.search import deep_llava

from tokenprune.evals.bench.inputs import shapes
from tokenprune.evals.bench.record import CPU_TIME, Record
from tokenprune.evals.dev.experiments import ideals
from tokenprune.evals.dev.tables.speed.ideals import table


def run(folder: Path, *arguments: Any) -> Record:
    ideals.main([str(part) for part in ("--output", folder, "--shape", "llava-1.5-0.5b", "--cpu-time", *arguments)])
    return Record.read(folder / "llava-1.5-0.5b.json")


def test_a_run_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(shapes.SHAPES, "llava-1.5-0.5b", lambda: deep_llava().config)
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    add = Record.add_round

    def interrupted(self: Record, batch: int, *args: Any) -> None:
        add(self, batch, *args)
        if self.n_rounds(1, "Grid @ 0.1") == 1:
            self.write()
            raise KeyboardInterrupt

    options = ["--strategy", "random", "grid", "adatoken", "--keep-ratio", 0.5, 0.1, "--rounds", 2]
    monkeypatch.setattr(Record, "add_round", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *options)
    monkeypatch.setattr(Record, "add_round", add)
    before = Record.read(tmp_path / "llava-1.5-0.5b.json")
    done = {name: before.n_rounds(1, name) for name in ("Random @ 0.5", "Random @ 0.1", "Grid @ 0.5", "Grid @ 0.1")}
    assert list(done.values()) == [2, 2, 2, 1]
    record = run(tmp_path, *options)
    assert record.rounds[: len(before.rounds)] == before.rounds
    assert record.about["clock"] == CPU_TIME
    for one in record.rounds:
        assert len(one.seconds) == 2  # the strategy and its ideal
        assert one.others is not None
        assert one.others >= 0
    assert "AdaToken @ 0.1: AdaToken: keep_ratio=0.1 is an average over" in capsys.readouterr().out
    names = {name for one in record.rounds for name in one.seconds if not name.startswith("ideal")}
    assert names == {"Random @ 0.5", "Random @ 0.1", "Grid @ 0.5", "Grid @ 0.1", "AdaToken @ 0.5"}
    assert all(record.n_rounds(1, name) == 2 for name in names)
    half, *three, tenth, _, _ = table([record]).lines
    assert [(together[1], together[2], together[-1]) for together in (half, tenth)] == [
        ("all", "50%", "6"),
        ("all", "10%", "4"),
    ]
    assert {line[1] for line in three} == {"Random", "Grid", "AdaToken"}
