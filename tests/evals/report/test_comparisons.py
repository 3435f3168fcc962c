"""What is compared with what, and how numbers that cover only one task are marked."""

from __future__ import annotations

from dataclasses import replace

from helpers.files.rows import row
from rich.console import Console

from tokenprune.evals.report.report import report, summary
from tokenprune.evals.report.table import NOTHING
from tokenprune.evals.report.tables import accuracy_table, difference_table, summary_table, unpruned_table
from tokenprune.evals.report.terminal import table
from tokenprune.evals.storage.results import FAILED, TaskResult

ALL, HALF = [1.0] * 20, [1.0, 0.0] * 10


def compact() -> list[TaskResult]:
    """Rows of a run with `--position-ids compact`."""
    return [
        row("unpruned", "original", 1.0, {"": ALL}),
        row("FoPru", "compact", 0.25, {"": HALF}),
        row("Random", "compact", 0.25, {"": HALF}),
    ]


def test_compact_position_ids_alone_are_compared() -> None:
    rows = compact()
    assert [line[1] for line in (unpruned_table(rows) or accuracy_table([])).lines] == [
        "FoPru, compact IDs",
        "Random, compact IDs",
    ]
    found = difference_table(rows)
    assert found is not None
    assert list(found.headings) == ["keep ratio", "strategy", "REC, strategy - Random"]
    assert [line[1] for line in found.lines] == ["FoPru, compact IDs", "Random, compact IDs"]
    assert "Against the unpruned model on `scenes` (the same questions)" in report(rows)
    assert f"| 25 % | FoPru | 25 | 2.00 MB | {NOTHING} | 50.0 [30, 70] |" in summary(rows)


def test_compact_position_ids_beside_original_ones_are_not() -> None:
    rows = [*compact(), row("FoPru", "original", 0.25, {"": HALF}), row("Random", "original", 0.25, {"": HALF})]
    found = unpruned_table(rows)
    assert found is not None
    assert [line[1] for line in found.lines] == ["FoPru", "Random"]
    assert "Against the unpruned model on `scenes`, original position IDs (the same questions)" in report(rows)


def test_setups_that_never_answer_the_same_question_are_not_compared() -> None:
    """Each has answered some questions, and the rest of the report is complete."""
    unpruned = row("unpruned", "original", 1.0, {"": [1.0, 0.0, FAILED, FAILED]})
    pruned = row("FoPru", "original", 0.25, {"": [FAILED, FAILED, 1.0, 0.0]})
    found = unpruned_table([unpruned, pruned])
    assert found is not None
    assert found.lines == [["25 %", "FoPru", NOTHING, NOTHING, NOTHING]]
    assert "| 25 % | FoPru | original |" in report([unpruned, pruned])


def test_a_baseline_is_not_compared_with_itself() -> None:
    found = difference_table([*compact()[:2], row("Random", "compact", 0.25, {"": ALL})])
    assert found is not None
    assert [line[2].split()[0] for line in found.lines if line[2] != NOTHING] == ["-50.0"]


def test_visual_tokens_of_tasks_whose_images_differ() -> None:
    rows = [row(*key, {"": ALL}) for key in (("unpruned", "original", 1.0), ("Grid", "original", 0.25))]
    vqa = {"task": "vqa", "metric": "accuracy", "n_visual": 576.0}
    rows += [
        row("unpruned", "original", 1.0, {"": ALL}, n_mean=576.0, **vqa),
        row("Grid", "original", 0.25, {"": ALL}, n_mean=144.0, **vqa),
    ]
    each = ["REC 100 of 100, VQA 576 of 576", "REC 25 of 100, VQA 144 of 576"]
    assert [line[3] for line in accuracy_table(rows).lines] == each
    assert [line[2] for line in summary_table(rows).lines] == each
    assert summary_table(rows).headings[2] == "visual tokens a layer"
    console = Console(width=300, record=True)
    console.print(table(rows, "title"))
    assert "REC 25 of 100, VQA 144 of 576" in console.export_text()


def test_rows_that_were_measured_in_different_ways_are_not_silently_compared() -> None:
    rows = compact()
    assert "in the same way" not in report(rows)
    text = report([rows[0], *(replace(one, dtype="float16") for one in rows[1:])])
    _, said = text.split("Not all of this was measured in the same way, and differences between setups may come from")
    first, second = said.strip().splitlines()[-2:]
    assert (" bfloat16 on" in first, " float16 on" in second) == (True, True)


def test_a_single_image_has_no_interval() -> None:
    rows = [row("unpruned", "original", 1.0, {"": [0.3]}), row("Grid", "original", 0.25, {"": [0.6]})]
    text = report(rows)
    assert "nan" not in text
    assert "| 60.0 |" in text
    assert "| +30.0 | 200.0 % |" in text


def test_the_terminal_has_the_keep_ratio_that_was_asked_for() -> None:
    """It is not the share of visual tokens, which is higher for strategies that prune inside the language model."""
    some = row("FastV", "original", 0.25, {"": HALF})
    columns = {column.header: list(column.cells) for column in table([replace(some, n_mean=30.0)], "title").columns}
    assert columns["keep ratio"] == ["25 %"]
    assert str(columns["visual tokens"][0]).startswith("30 of ")


def test_the_terminal_names_no_position_ids_where_nothing_is_pruned() -> None:
    rows = [*compact(), row("downsample", "original", 0.25, {"": HALF})]
    names, ids, *_ = (list(column.cells) for column in table(rows, "title").columns)
    assert dict(zip(names, ids, strict=True)) == {
        "unpruned": NOTHING,
        "FoPru": "compact",
        "Random": "compact",
        "downsample": NOTHING,
    }
