"""The Markdown report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.commands import command
from helpers.files.rows import row

from tokenprune.evals.report import markers
from tokenprune.evals.report.differences import difference_table
from tokenprune.evals.report.report import differences, fill_document, read, report, summary
from tokenprune.evals.report.table import NOTHING
from tokenprune.evals.report.tables import accuracy_table, further_metrics_table, split_table
from tokenprune.evals.report.terminal import table
from tokenprune.evals.storage.results import FAILED, QuestionScore, TaskResult
from tokenprune.evals.storage.results_io import to_line

ALL, HALF, NONE = [1.0] * 20, [1.0, 0.0] * 10, [None] * 20


def results() -> list[TaskResult]:
    return [
        row("unpruned", "original", 1.0, {"val": ALL, "test": HALF}),
        row("Random", "original", 0.25, {"val": HALF, "test": NONE}),
        row("Random", "compact", 0.25, {"val": NONE, "test": NONE}),
        row("FoPru rank", "original", 0.25, {"val": ALL, "test": NONE}),
        row("downsample", "original", 0.25, {"val": HALF, "test": HALF}),
        row("FoPru rank", "original", 0.5, {"val": ALL, "test": NONE}),
    ]


def test_accuracy() -> None:
    assert str(accuracy_table(results())).splitlines() == [
        "| keep ratio | strategy | position IDs | visual tokens a layer | KV cache | REC Acc@0.5 (n = 40) |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 100 % | unpruned | \N{EN DASH} | 100 of 100 | 2.00 MB | 75.0 [60, 86] |",
        "| 50 % | FoPru rank | original | 50 of 100 | 2.00 MB | 50.0 [35, 65] |",
        "| 25 % | Random | original | 25 of 100 | 2.00 MB | 25.0 [14, 40] |",
        "| 25 % | Random | compact | 25 of 100 | 2.00 MB | 0.0 [0, 9] |",
        "| 25 % | FoPru rank | original | 25 of 100 | 2.00 MB | 50.0 [35, 65] |",
        "| 25 % | downsample | \N{EN DASH} | 25 of 100 | 2.00 MB | 50.0 [35, 65] |",
    ]


def test_splits() -> None:
    vqa = row("unpruned", "original", 1.0, {"val": HALF}, task="vqa", metric="accuracy")
    photographs = row("unpruned", "original", 1.0, {"photo": HALF}, dataset="photographs")
    assert str(split_table([*results(), vqa, photographs])).splitlines() == [
        "| set | split | REC Acc@0.5 | VQA accuracy |",
        "| --- | --- | --- | --- |",
        "| scenes | all | 75.0 [60, 86], n = 40 | 50.0 [30, 70], n = 20 |",
        "| scenes | val | 100.0 [84, 100], n = 20 | 50.0 [30, 70], n = 20 |",
        "| scenes | test | 50.0 [30, 70], n = 20 | \N{EN DASH} |",
        "| photographs | all | 50.0 [30, 70], n = 20 | \N{EN DASH} |",
    ]


def test_differences() -> None:
    heading, _, *lines = str(difference_table(results(), "Random")).splitlines()
    assert heading == "| keep ratio | strategy | REC, original - compact IDs | REC, strategy - Random |"
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert [cell[:2] for cell in cells] == [
        ["50 %", "FoPru rank"],
        ["25 %", "Random"],
        ["25 %", "FoPru rank"],
        ["25 %", "downsample"],
    ]
    assert cells[0][2:] == [NOTHING, NOTHING]  # neither compact IDs nor Random at 50 %
    assert cells[1][2].startswith("+25.0 [")
    assert cells[1][3] == NOTHING
    assert cells[2][3].startswith("+25.0 [")
    assert cells[3][3].startswith("+25.0 [")


def test_unknown_baseline() -> None:
    """The unpruned model cannot be chosen, because everything is compared with it anyway; one of another set can."""
    choose = "; leave it out, or choose another of Random, FoPru rank, downsample"
    for make in (report, differences):
        with pytest.raises(ValueError, match=f"^--baseline 'Randm' was not measured{choose}$"):
            make(results(), baseline="Randm")
        with pytest.raises(ValueError, match=f"^--baseline 'unpruned' is always compared with{choose}$"):
            make(results(), baseline="unpruned")
        others = [row(name, "original", 0.25, {"": ALL}, dataset="other") for name in ("Grid", "Random")]
        assert "REC, strategy - Grid" in make([*results(), *others], baseline="Grid")


def test_what_was_not_measured_has_no_column() -> None:
    """Neither random selection, the default baseline, nor compact position IDs."""
    rows = [row for row in results() if row.strategy != "Random"]
    assert difference_table(rows) is None
    assert "Paired differences" not in report(rows)
    left = difference_table([row for row in results() if row.position_ids == "original"])
    assert left is not None
    assert list(left.headings) == ["keep ratio", "strategy", "REC, strategy - Random"]


def test_a_task_of_which_no_question_could_be_asked() -> None:
    failed: dict[str, list[QuestionScore]] = {"": [FAILED] * 3}
    named = {"task": "vqa", "metric": "accuracy", "kv_cache_bytes": 0, "n_visual": 0.0, "n_mean": 0.0}
    keys = [("unpruned", "original", 1.0), ("Random", "original", 0.25)]
    rows = [row(*key, failed, **named) for key in keys] + [row(*key, {"": ALL}) for key in keys]
    lines = report(rows).splitlines()
    assert f"| 100 % | unpruned | {NOTHING} | 100 of 100 | 2.00 MB | {NOTHING} | 100.0 [84, 100] |" in lines
    vqa, rec = " | ".join([NOTHING] * 3), "+0.0 [-16.8, 16.8] | 100.0 % [83, 117] | 1.000"
    assert f"| 25 % | Random | {vqa} | {rec} |" in lines
    assert "| 25 % | Random | original | 3 |" in lines
    assert table(rows, "title").row_count == 2


def test_a_relative_accuracy_of_too_few_questions_has_no_interval() -> None:
    few: dict[str, list[QuestionScore]] = {"": [1.0, 0.0]}  # half of the draws would divide by zero
    rows = [row(*key, few) for key in (("unpruned", "original", 1.0), ("Grid", "original", 0.25))]
    assert "| 25 % | Grid | +0.0 [-84.2, 84.2] | 100.0 % | 1.000 |" in report(rows).splitlines()


def test_many_tasks_are_in_several_tables() -> None:
    rows = [row("unpruned", "original", 1.0, {"": ALL}, task=f"t{number}") for number in range(9)]
    lines = report([*rows, *(replace(one, strategy="Grid", keep_ratio=0.25) for one in rows)]).splitlines()
    headings = [line for line in lines if "visual tokens a layer" in line]
    assert [heading.count("Acc@0.5") for heading in headings] == [4, 4, 1]


def test_one_model_at_a_time() -> None:
    with pytest.raises(ValueError, match=r"several models \(llava, other\)"):
        report([*results(), row("unpruned", "original", 1.0, {"": ALL}, model="other")])


def test_a_set_without_strategies_is_only_in_the_last_table() -> None:
    text = report([*results(), row("unpruned", "original", 1.0, {"photo": HALF}, dataset="photographs")])
    assert "Accuracy on `scenes`" in text
    assert "Accuracy on `photographs`" not in text
    assert "| photographs | all |" in text
    assert "(`llava`, bfloat16 on cpu, torch 2.9)" in text


def test_a_block_is_replaced_between_its_markers() -> None:
    begin, end = markers.marks("a")
    once = markers.replace_block(f"before\n{begin}old{end}after\n", "a", "new\n")
    assert once == f"before\n{begin}\nnew\n\n{end}after\n"
    assert markers.replace_block(once, "a", "new\n") == once
    for wrong in (f"{begin}{begin}{end}", f"{begin}{end}{end}", f"{end}{begin}", ""):
        with pytest.raises(ValueError, match=r"needs the lines <!-- table: a --> and .* each once"):
            markers.replace_block(wrong, "a", "new")


def test_a_document_gets_the_tables_that_it_has_markers_for() -> None:
    accuracy, paired, both = ("".join(markers.marks(name)) for name in ("accuracy", "paired differences", "report"))
    assert fill_document(accuracy, results()).count("best first") == 1
    assert "McNemar" not in fill_document(accuracy, results())
    assert fill_document(paired, results()).count("McNemar") == 1
    assert differences(results()) in fill_document(paired, results())
    assert "Accuracy on" not in fill_document(paired, results())
    assert report(results(), further=False) in fill_document(both, results())
    other = "".join(markers.marks("other"))
    assert fill_document(accuracy + other, results()).endswith(other)
    with pytest.raises(ValueError, match=r"no markers for a table: write <!-- table: accuracy --> or"):
        fill_document(other, results())


def test_summary_has_both_position_ids_in_a_line_and_the_best_first() -> None:
    headings, _, *lines = (line for line in summary(results()).splitlines() if line.startswith("| "))
    visual = "visual tokens a layer, of 100 | KV cache"
    assert headings == f"| keep ratio | strategy | {visual} | REC Acc@0.5 (n = 40) | REC Acc@0.5, compact IDs |"
    assert lines[:5] == [
        "| 100 % | unpruned | 100 | 2.00 MB | 75.0 [60, 86] | \N{EN DASH} |",
        "| 50 % | FoPru rank | 50 | 2.00 MB | 50.0 [35, 65] | \N{EN DASH} |",
        "| 25 % | FoPru rank | 25 | 2.00 MB | 50.0 [35, 65] | \N{EN DASH} |",
        "| 25 % | downsample | 25 | 2.00 MB | 50.0 [35, 65] | \N{EN DASH} |",
        "| 25 % | Random | 25 | 2.00 MB | 25.0 [14, 40] | 0.0 [0, 9] |",
    ]


def test_further_metrics() -> None:
    """Shares are in per cent, sums as they are. Rows of older runs have no intervals; a missing task is a dash."""
    mme = {"accuracy": 0.5, "accuracy+": 0.25, "perception": 812.5}
    rows = [
        row("unpruned", "original", 1.0, {"": HALF}, metrics={"Acc@0.5": 0.5, "mIoU": 0.61}),
        row(
            "Grid", "compact", 0.5, {"": [*HALF[1:], "failed"]}, metrics={"mIoU": 0.4}, intervals={"mIoU": (0.31, 0.5)}
        ),
        row(
            "unpruned",
            "original",
            1.0,
            {"": HALF},
            task="mme",
            metric="accuracy",
            metrics=mme,
            intervals={"perception": (700.4, 900.0)},
        ),
    ]
    assert str(further_metrics_table(rows)).splitlines() == [
        "| keep ratio | strategy | position IDs | REC mIoU | MME accuracy+ | MME perception (points) | REC failed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| 100 % | unpruned | \N{EN DASH} | 61.0 | 25.0 | 812.5 [700, 900] | 0 |",
        "| 50 % | Grid | compact | 40.0 [31, 50] | \N{EN DASH} | \N{EN DASH} | 1 |",
    ]
    text = report([*rows, row("Random", "original", 0.5, {"": HALF})])
    assert text.count("Further metrics on `scenes` in per cent") == 1
    assert further_metrics_table([row("unpruned", "original", 1.0, {"": HALF}, metrics={"Acc@0.5": 0.5})]) is None


def test_answers_that_cannot_be_read_are_in_the_report() -> None:
    lines = str(further_metrics_table(results())).splitlines()
    assert lines[0] == "| keep ratio | strategy | position IDs | REC unparsable |"
    assert [line.rpartition(" | ")[2] for line in lines[2:]] == ["0 |", "20 |", "20 |", "40 |", "20 |", "0 |"]


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    path, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    path.write_text("".join(f"{to_line(row)}\n" for row in results()))
    assert command("report", path) == 0
    assert capsys.readouterr().out.startswith(report(results()))
    assert command("report", path, "--split", "val", "--baseline", "FoPru rank") == 0
    printed = capsys.readouterr().out
    assert "REC Acc@0.5 (n = 20)" in printed
    assert "strategy - FoPru rank" in printed
    page.write_text("".join(markers.marks("report")))
    assert command("report", path, "--into", page) == 0
    assert report(results(), further=False) in page.read_text()
    assert "Further metrics" not in page.read_text()
    assert capsys.readouterr().out == ""


def test_a_row_says_its_number_of_questions_where_that_is_not_the_headings() -> None:
    rows = [row("unpruned", "original", 1.0, {"": [*ALL[1:], FAILED]}), row("Grid", "original", 0.25, {"": HALF})]
    for text in (report(rows), summary(rows)):
        assert "(n = 19)" in text
        assert "| 50.0 [30, 70], n = 20 |" in text
    assert "50.0 [30, 70], n = 20" in [cell for column in table(rows, "title").columns for cell in column.cells]


def test_a_setup_alone_is_in_the_report() -> None:
    alone = [row("Grid", "original", 0.25, {"": HALF})]
    for text in (report(alone), summary(alone)):
        assert "Accuracy on `scenes`" in text
        assert "50.0 [30, 70]" in text
        assert "Unpruned, by split" not in text  # the unpruned model was not measured
    assert "compact IDs" not in summary(alone)


def test_the_best_mean_is_first_whatever_was_measured() -> None:
    """Measured on two tasks, on one, and on none."""
    two = [row("Grid", "original", 0.25, {"": HALF}, task=task) for task in ("vqa", "rec")]
    failed: list[QuestionScore] = [FAILED] * 20
    none = row("FoPru", "original", 0.25, {"": failed}, task="vqa")
    text = summary([none, *two, row("Random", "original", 0.25, {"": ALL}, task="vqa")])
    lines = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| 25 %")]
    assert lines == ["Random", "Grid", "FoPru"]


def test_other_questions_under_the_same_names_are_refused(tmp_path: Path) -> None:
    """Users' own questions are numbered, so two sets can have the same IDs; run.json has a digest of the questions."""
    for name, content in (("one", "a1"), ("two", "b2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(f"{to_line(row(name, 'original', 0.25, {'': HALF}))}\n")
        data = {"split": None, "limit": None, "rec": {"questions": 20, "digest": content}}
        record = {"identity": {"setups": {}, "data": data}, "about": {}}
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    said = command("report", tmp_path / "one", tmp_path / "two", "--output", tmp_path / "report")
    assert f"{tmp_path / 'one'} and {tmp_path / 'two'}: the rec questions of 'scenes' differ; measure both with" in said
    assert not (tmp_path / "report").exists()
    assert [row.strategy for row in read([tmp_path / "one"])] == ["one"]


def test_files_of_rows_are_compared_by_the_ids_of_their_questions(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(f"{to_line(row('Grid', 'original', 0.25, {'': HALF}))}\n")
    two.write_text(f"{to_line(row('FoPru', 'original', 0.25, {'': HALF}, questions='other'))}\n")
    assert "differ; measure both with the same --data, --split and --limit" in command("report", one, two)
