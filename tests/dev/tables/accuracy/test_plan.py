"""The tables made from the plan's rows: before, during and after the measurement."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.files.measured import N, store

from tokenprune.evals.dev.measure.plan import KINDS, PRUNED, RATIOS, STRATEGIES, UNPRUNED, VARIANTS, VARIED
from tokenprune.evals.dev.tables.accuracy import (
    headline,
    judged,
    kinds,
    paired,
    references,
    resolutions,
    strategies,
    variants,
    which_strategy,
)
from tokenprune.evals.dev.tables.accuracy.adapted import ADAPTED
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, NOTHING_MEASURED, label
from tokenprune.evals.dev.tables.accuracy.variants import changed
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


@pytest.mark.parametrize(
    "made",
    [
        *(
            made.stored
            for made in (headline, strategies, resolutions, kinds, paired, references, variants, which_strategy)
        ),
        judged.findings,
    ],
    ids=lambda made: made.__module__.rpartition(".")[2],
)
def test_nothing_is_measured(made: Callable[[Path], str], tmp_path: Path) -> None:
    assert made(tmp_path) == NOTHING_MEASURED


def test_the_headline_has_the_best_of_those_before_the_language_model(folder: Path) -> None:
    text = headline.stored(folder)
    setups = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| ")][2:]
    assert setups[:2] == [["| 100 %", "unpruned"], ["| 25 %", "Mosaic"]]
    assert sorted(name for _, name in setups[2:]) == ["FoPru rank -2", "Random", "downsample"]
    assert cells(text, "25 %", "Mosaic")[4:] == ["80.0 [65, 90]"] * 2  # REC and VQA, with original IDs
    assert text.endswith("50 %, 10 % and 5 %: not measured yet.\n")


def test_the_headline_has_what_was_trained_and_asked_the_same(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "accuracy").symlink_to(folder)
    pruned = read([folder / "scenes" / "25.jsonl"])
    rows = [replace(one, model=ADAPTED) for one in pruned if (one.strategy, one.position_ids) == ("Mosaic", "original")]
    write(tmp_path / "adapted_mosaic.jsonl", rows)
    write(tmp_path / "adapted_others.jsonl", [replace(one, strategy="Grid", questions="others") for one in rows])
    text = headline.stored(tmp_path / "accuracy")
    assert cells(text, "25 %", "Mosaic, adapted")[2:] == cells(text, "25 %", "Mosaic")[2:]
    assert text.count("adapted") == 1


def test_every_strategy(folder: Path) -> None:
    text = strategies.stored(folder)
    assert text.startswith(
        "At 25 %, not possible on this model: `pyramiddrop`.\n\n50 %, 10 % and 5 %: not measured yet."
    )
    for strategy in STRATEGIES:
        if strategy != "pyramiddrop":
            assert cells(text, "25 %", label(strategy))
    assert "(`llava`, float32 on cpu, torch 2.9)" in text
    assert strategies.on_other_grids(folder).count(NOTHING_MEASURED) == 2


def test_resolutions(folder: Path) -> None:
    text = resolutions.stored(folder)
    assert cells(text, "scenes, 8 x 8", "val")[2:] == ["100.0 [84, 100], n = 20"] * 2
    assert cells(text, "scenes, 16 x 16", "all")
    assert cells(text, "photographs, 16 x 16", "test")
    assert "Not measured yet: scenes, 12 x 12; scenes, 24 x 24; counting, 8 x 8; counting; " in text


def test_kinds(folder: Path) -> None:
    first, second = (part.data for part in OF_KINDS[:2])
    text = kinds.stored(folder)
    assert cells(text, "keep ratio", "strategy")[2:] == [f"{first}, VQA (n = {2 * N})", f"{second}, VQA (n = {2 * N})"]
    assert cells(text, "100 %", "unpruned")[2:] == ["100.0 [91, 100]"] * 2
    assert cells(text, "25 %", "Mosaic")[2:] == ["80.0 [65, 90], 80%", NOTHING]
    assert cells(text, "10 %", "Mosaic")[2:] == ["80.0 [65, 90], 80%"] * 2
    assert f"`{second}`: 25 %: not measured yet." in text
    assert f"`{OF_KINDS[2].data}`: 25 % and 10 %: not measured yet." in text


def test_paired_differences(folder: Path) -> None:
    text = paired.stored(folder)
    assert text.startswith(
        "`scenes`: At 25 %, not possible on this model: `pyramiddrop`.\n\n`scenes`: 50 %, 10 % and 5 %"
    )
    assert "Paired differences on `scenes`" in text
    assert f"Paired differences on `{OF_KINDS[0].data}`" in text
    assert "Against the unpruned model on `scenes`" in text


def test_differences_to_references(folder: Path) -> None:
    text = references.stored(folder)
    rec, vqa = text.split("VQA:")
    for part in (rec, vqa):
        assert cells(part, "25 %", "Mosaic")[2].startswith("+30.0 [")
        assert cells(part, "25 %", "Mosaic")[-1] == NOTHING
    assert "downsample" not in text


def test_variants(folder: Path) -> None:
    text = variants.stored(folder)
    of_cells, of_sizes, of_features, of_schedules = text.split("| keep ratio |")[1:]
    assert cells(of_sizes, "25 %", "Mosaic")[2:4] == ["80.0", "75.0"]
    assert cells(of_sizes, "25 %", "Mosaic")[4].startswith("-5.0 [")
    assert cells(of_cells, "25 %", "FoPru cls -2")[4].startswith("+0.0 [")
    assert cells(of_schedules, "25 %", "ToMe")
    assert cells(of_features, "25 %", "Nuwa -2")
    assert "10 %: not measured yet." in text


def test_every_variant_has_a_line() -> None:
    named = {name for _, setting, plain in variants.CHANGES for one in plain for name in (one, changed(one, setting))}
    assert {label(name) for name in VARIANTS.split()} <= {label(name) for name in named}
    assert {label(name) for name in named} <= {label(name) for name in (*STRATEGIES, *VARIANTS.split())}


def test_findings_are_judged_by_stored_rows(folder: Path) -> None:
    findings = judged.findings(folder)
    assert findings.startswith("On `scenes`:")
    assert cells(findings, "25 %", "Mosaic")[-1] == "holds"


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


def test_which_strategy_has_times() -> None:
    times = dict(which_strategy.costs(which_strategy.TIMES))
    untimed = {about.name for about in which_strategy.ABOUT if about.cost(times) == NOTHING}
    assert untimed == {"FoPru row", "FlowCut", "ToMe", "downsample"}
    assert set(which_strategy.BUDGETS) <= set(RATIOS)
