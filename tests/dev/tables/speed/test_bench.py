"""The tables of stored timings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenprune.evals.bench.cases import Facts
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.schedule import Schedule
from tokenprune.evals.dev.tables.speed import bench as report

ABOUT = {
    "model": "tiny",
    "parameters": 1_000_000,
    "weight_bytes": 4_000_000,
    "dtype": "float32",
    "attention": "sdpa",
    "side": 24,
    "device": "cpu",
    "cpu": "a CPU",
    "threads": 2,
    "cores": 2,
    "memory_bytes": 2**30,
    "versions": {"torch": "2.9"},
}
UNPRUNED = Facts(
    batch=1,
    name="unpruned",
    strategy="unpruned",
    keep_ratio=1.0,
    n_visual=100,
    n_kept=100,
    n_mean=100.0,
    schedule=Schedule((100,) * 4),
    ideal=None,
    flops=8_000_000_000,
    kv_cache_bytes=4_000_000,
    peak_bytes=8_000_000,
)
IDEAL = replace(
    UNPRUNED,
    schedule=Schedule((25,) * 4),
    name="ideal 25",
    strategy="ideal",
    keep_ratio=0.25,
    n_kept=25,
    n_mean=25.0,
    kv_cache_bytes=1_000_000,
)
FOPRU = replace(IDEAL, name="FoPru @ 0.25", strategy="FoPru", ideal="ideal 25", peak_bytes=4_000_000)
GRID = replace(FOPRU, name="Grid @ 0.25", strategy="Grid")


def stored(folder: Path, name: str, *, n_new: int | None = None) -> Record:
    generate = {} if n_new is None else {"generate_bytes": 9_000_000, "n_new": n_new}
    facts = [replace(one, **generate) for one in (UNPRUNED, IDEAL, FOPRU, GRID)]
    record = Record(folder / f"{name}.json", ABOUT, facts, [])
    seconds = {"unpruned": 1.0, "ideal 25": 0.4, "FoPru @ 0.25": 0.5, "Grid @ 0.25": 0.45}
    phases = ("tower", "prefill", "ttft", "decode") if n_new is None else ("generate",)
    own = {"selection": 0.1} if n_new is None else {}
    record.add_round(1, {case: dict.fromkeys(phases, took) | own for case, took in seconds.items()})
    record.write()
    return record


def test_the_short_table(tmp_path: Path) -> None:
    lines = report.short(stored(tmp_path, "a")).splitlines()
    assert lines[0].startswith("| strategy | visual tokens, of 100 | TTFT to unpruned | TTFT to ideal |")
    # Fewer tokens save 0.6 s, and selection costs 0.1 s: as much as 100 / 6 tokens save.
    rest = "100.0 ms | 0.50 | 0.25"
    assert lines[2:4] == [
        f"| Grid | 25 | {_sure(0.45)} | {_sure(1.125)} | {_sure(1.125)} | {rest} | 16 tokens |",
        f"| FoPru | 25 | {_sure(0.5)} | {_sure(1.25)} | {_sure(1.25)} | {rest} | 17 tokens |",
    ]
    assert "0.00 billion parameters, float32, sdpa attention; cpu (a CPU; 2 threads of 2 cores" in lines[-1]


def _sure(value: float) -> str:
    """Return a median of one round, without an interval."""
    return f"{value:.3f}"


def test_all_tables(tmp_path: Path) -> None:
    text = report.report([stored(tmp_path, "a"), stored(tmp_path, "b", n_new=32), stored(tmp_path, report.SUMMED[0])])
    assert text.count("### tiny, image of 24 px") == 3
    assert text.count("| vision tower | selection | prefill | TTFT | decode a token | peak memory |") == 2
    assert text.count("largest batch in 24 GB") == 1
    assert (
        "| 1 | FoPru | 25% | 25 | 500.0 ms | 100.0 ms | 500.0 ms | 500.0 ms | 500.0 ms | 4 MB | 1.0 MB | 0.008 |"
        in text
    )
