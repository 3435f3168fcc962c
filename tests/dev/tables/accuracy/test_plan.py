"""Tables of accuracy: made from the plan's rows, and what is missing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.files.measured import N, store

from tokenprune.evals.dev.measure.plan import BOTH, KINDS, PRUNED, RATIOS, UNPRUNED, VARIED, Part
from tokenprune.evals.dev.tables.accuracy import (
    headline,
    which_strategy,
)
from tokenprune.evals.dev.tables.accuracy.adapted import ADAPTED
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, measured
from tokenprune.evals.report.table import NOTHING
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.storage.results_io import read, write

OF_KINDS = [part for part in PRUNED if part.data in KINDS]


def right(setup: Setup, task: str) -> int:
    """Return how many answers are right: Mosaic is best before the language model, FastV inside it, and compact IDs
    lose REC."""
    if setup.position_ids == "compact" and task == "rec":
        return 0
    return {"unpruned": N, "FastV": N - 1, "Mosaic": N - 4, "Mosaic size": N - 5}.get(setup.label, N // 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the main part at 25 %, of one kind of question at 25 and 10 %, and of the unpruned model on three
    grids."""
    path = tmp_path_factory.mktemp("rows")
    store(path, MAIN, ratios=(0.25,), right=right, refused=("pyramiddrop",))
    store(path, VARIED, ratios=(0.25,), right=right)
    store(path, OF_KINDS[0], tasks=("vqa",), right=right)
    store(path, OF_KINDS[1], ratios=(0.1,), tasks=("vqa",), right=right)
    for part in (UNPRUNED[0], UNPRUNED[2], UNPRUNED[-1]):
        store(path, part, right=right)
    return path


def cells(text: str, *begin: str) -> list[str]:
    """Return the cells of the only table line that begins with these cells."""
    (line,) = [one for one in text.splitlines() if one.startswith(f"| {' | '.join(begin)} |")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_headline_has_what_was_trained_and_asked_the_same(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "accuracy").symlink_to(folder)
    pruned = read([folder / "scenes" / "25.jsonl"])
    rows = [replace(one, model=ADAPTED) for one in pruned if (one.strategy, one.position_ids) == ("Mosaic", "original")]
    write(tmp_path / "adapted_mosaic.jsonl", rows)
    write(tmp_path / "adapted_others.jsonl", [replace(one, strategy="Grid", questions="others") for one in rows])
    text = headline.stored(tmp_path / "accuracy")
    assert cells(text, "25 %", "Mosaic, adapted")[2:] == cells(text, "25 %", "Mosaic")[2:]
    assert text.count("adapted") == 1


def test_which_strategy_ranks_at_an_equal_cache(tmp_path: Path) -> None:
    """FastV's cache is twice that of its keep ratio, so its 10 % are the nearest to 25 %, but not equal: it comes last,
    although it is the best. PAR's 10 % are equal. Mosaic's 10 % are those of the smaller cache."""
    store(tmp_path, MAIN, ratios=(0.25, 0.1), right=right)
    for ratio in ("25", "10"):
        file = tmp_path / "scenes" / f"{ratio}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for one in rows:
            factor = {"FastV": 2, "PAR": 2.5}.get(one["strategy"], 1)
            one["kv_cache_bytes"] = round(factor * one["kv_cache_bytes"])
        file.write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    text = which_strategy.stored(tmp_path)
    first, *lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(lines) == len(which_strategy.ABOUT)
    assert first.startswith("| unpruned | 100 % | 256 |")
    assert lines[0].startswith("| Mosaic |")
    assert [line.split(" | ")[0] for line in lines[-2:]] == ["| FastV", "| calibrated VFlowOpt"]
    assert cells(text, "Mosaic")[1:8] == ["25 %", "64", "2.50 MB", "80.0", "80.0", "80.0", "80.0"]
    assert cells(text, "PAR")[1:8] == ["10 %", "26", "2.50 MB", "50.0", "50.0", NOTHING, NOTHING]
    assert cells(text, "FastV")[1:4] == ["10 %", "26", "2.00 MB"]
    assert cells(text, "downsample")[8:] == ["any image size", "transformers, vLLM", NOTHING, NOTHING]
    n = len(which_strategy.ABOUT) - 3  # without FastV, calibrated VFlowOpt, which has no rows, and downsample
    told = (
        "on {}, 0 are within chance of the unpruned model, and 2 are better and 0 worse than downsample beyond chance"
    )
    both = "; ".join(told.format(task) for task in ("REC", "VQA"))
    assert text.endswith(f"\n\nOf the {n} strategies and settings with a 25 % cache: {both}.\n")


# A setup is shown only when all of its tasks have been measured, and what is missing is named.


THREE = ("fopru:mode=rank,layer=-2", "pyramiddrop", "sparsevlm")
PART = Part(MAIN.data, None, RATIOS, THREE, BOTH)


def test_a_refused_strategy_is_not_waited_for(tmp_path: Path) -> None:
    store(tmp_path, PART, ratios=(0.05,), refused=("pyramiddrop", "sparsevlm"))
    found = measured(PART, tmp_path)
    assert {row.keep_ratio for row in found.rows} == {1.0, 0.05}
    assert not {row.strategy for row in found.rows} & {"PyramidDrop", "SparseVLM"}
    assert found.notes == [
        "At 5 %, not possible on this model: `pyramiddrop` and `sparsevlm`.",
        "50 %, 25 % and 10 %: not measured yet.",
    ]
