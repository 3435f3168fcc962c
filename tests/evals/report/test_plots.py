"""What the plots of the report compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.files.rows import row
from matplotlib.figure import Figure

from tokenprune import DataError
from tokenprune.evals.report import pareto
from tokenprune.evals.report.report import write

RIGHT = [1.0] * 12


@pytest.mark.parametrize("other", [{"device": "NVIDIA H100"}, {"dtype": "float32"}, {"versions": {"vllm": "0.33"}}])
def test_times_of_several_machines_are_not_compared(
    other: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda self, path, dpi: None)  # only the number of plots matters
    rows = [
        row("unpruned", "original", 1.0, {"": RIGHT}, seconds=2.0),
        row("Grid", "original", 0.5, {"": RIGHT}, seconds=1.0),
    ]
    both = [*rows, *(replace(one, task="vqa", **other) for one in rows)]  # each task is compared with itself
    for plotted, n_plots in ((rows, 2), (both, 2), ([rows[0], replace(rows[1], **other)], 1)):
        assert len(pareto.draw(plotted, tmp_path, "a")) == 2 * n_plots


def test_dollar_signs_are_no_formula(tmp_path: Path) -> None:
    rows = [row("unpruned", "original", 1.0, {"": RIGHT}), row(r"FoPru $\a$", "original", 0.5, {"": RIGHT})]
    assert pareto.draw(rows, tmp_path, "a")


@pytest.mark.parametrize("name", ["report.md", "own_accuracy_against_tokens.svg", "report.html"])
def test_a_full_disk_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    rows = [row("unpruned", "original", 1.0, {"": RIGHT}), row("Grid", "original", 0.5, {"": RIGHT})]
    rows = [replace(one, dataset="own") for one in rows]
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(DataError, match=f"{name}: cannot be written: No space left on device"):
        write([], rows, tmp_path, baseline=None, n_losses=0)
