"""Time and memory as images grow: the experiment on small images, and bounds on memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokenprune.evals.dev.experiments import growth

pytestmark = pytest.mark.slow


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.jsonl"
    growth.main(["--tiles", "1", "4", "--sides", "224", "--rounds", "1", "--output", str(output)])
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 2 * len(growth.FOR_TILES) + len(growth.FOR_SIDES)
    assert {row["visual_tokens"] for row in rows} == {64, 256}
    assert all(row["kept"] == 64 for row in rows if "tiles" in row and row["strategy"] != growth.ENCODED)
    printed = capsys.readouterr().out
    assert printed.count("4 (256 tokens)") == printed.count("224 x 224 (64 tokens)") == 2
    assert printed.count("| tome |") == 2


def peaks(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Return the peaks by strategy, for ascending sizes."""
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row["strategy"], []).append(row["peak_bytes"])
    return found


def test_memory_grows_no_faster_than_the_number_of_tiles() -> None:
    """It is also only a little above what encoding the image takes without a strategy."""
    by_name = peaks(list(growth.rows_of([8, 16], [], 1)))
    encoded = by_name.pop(growth.ENCODED)
    by_name.pop("vispruner")  # it compares all pairs at once if they take at most 64 MiB
    for name, (half, whole) in by_name.items():
        assert whole < 2.1 * half, name
        assert whole < 1.7 * encoded[-1], name


def test_memory_grows_no_faster_than_the_number_of_pixels() -> None:
    for name, (small, large) in peaks(list(growth.rows_of([], [448, 896], 1))).items():
        assert large < 4.4 * small, name
