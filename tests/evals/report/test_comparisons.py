"""Comparing runs: verdicts, equal weights, and edited questions."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import sample_image, saved, write_vqav2
from helpers.files.rows import row
from helpers.tiny import tiny_llava
from rich.console import Console

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.report.differences import difference_table, unpruned_table
from tokenprune.evals.report.regressions import Regression, questions_of
from tokenprune.evals.report.report import read, report, summary, verdicts
from tokenprune.evals.report.table import NOTHING
from tokenprune.evals.report.tables import accuracy_table, summary_table
from tokenprune.evals.report.terminal import table
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage.results import FAILED, TaskResult
from tokenprune.evals.storage.results_io import to_line
from tokenprune.evals.storage.run_folder import RunFolder

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


# The report's sentence about what can be pruned.


RIGHT, LESS, HALF_OF_FOUR = [1.0] * 400, [1.0] * 395 + [0.0] * 5, [1.0, 0.0] * 200
BEGIN = "Fewest visual tokens that lose at most 5 points, 95 % interval included, on"
WHOLE = row("unpruned", "original", 1.0, {"": RIGHT})


def test_the_fewest_tokens_that_lose_little_or_else_the_smallest_loss() -> None:
    """Visual tokens a layer count, not keep ratios, and original position IDs alone where both were measured."""
    rows = [
        WHOLE,
        row("Random", "original", 0.25, {"": LESS}),
        row("Random", "compact", 0.1, {"": RIGHT}),
        row("Random", "original", 0.1, {"": HALF_OF_FOUR}),
        row("FastV", "original", 0.1, {"": RIGHT}, n_mean=35.0),
    ]
    task = [replace(one, task="vqa", scores={"": HALF_OF_FOUR}) for one in rows[1:]]
    (told,) = verdicts([*rows, replace(WHOLE, task="vqa"), *task])
    rec, vqa = told.split("; ")
    assert rec.startswith(f"{BEGIN} `scenes`: REC, Random at 25 % (25 of 100 a layer, -1.2 [")
    assert vqa.startswith("VQA, none of 3, the closest being Random at 25 % (25 of 100 a layer, -50.0 [")
    assert report(rows).startswith(f"{rec}.\n\n")


def test_few_questions_show_nothing() -> None:
    (told,) = verdicts(
        [row(*key, {"": RIGHT[:20]}) for key in (("unpruned", "original", 1.0), ("Grid", "original", 0.25))]
    )
    assert "REC, none of 1, the closest being Grid at 25 % (25 of 100 a layer, +0.0 [" in told


def test_compact_position_ids_are_named() -> None:
    (told,) = verdicts([WHOLE, row("Grid", "compact", 0.25, {"": RIGHT})])
    assert "REC, Grid at 25 % with compact position IDs (25 of 100 a layer, +0.0 [" in told


def test_nothing_to_compare() -> None:
    pruned = row("Grid", "original", 0.25, {"": RIGHT})
    assert not verdicts([WHOLE])
    assert not verdicts([pruned])
    assert not verdicts([replace(WHOLE, scores={"": [FAILED] * 400}), pruned])
    other = replace(WHOLE, dataset="other")
    assert len(verdicts([WHOLE, pruned, other, replace(pruned, dataset="other")])) == 2


# All runs of one report must be of the same model.


def run(path: Path, weights: str, dtype: str = "float32", **about: str) -> Path:
    """Write a finished run of a model in a folder `merged`, and return the run's folder."""
    path.mkdir()
    (path / "rows.jsonl").write_text(f"{to_line(row(path.name, 'original', 0.25, {'': [1.0, 0.0]}))}\n")
    identity = {"setups": {}, "data": {}, "model": {"weights": weights, "dtype": dtype}}
    (path / "run.json").write_text(json.dumps({"identity": identity, "about": {"model": "merged", **about}}))
    return path


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    first, second = run(tmp_path / "first", "a1"), run(tmp_path / "second", "b2")
    with pytest.raises(DataError, match=r"first and .*second: their models are both called 'merged', but have other"):
        read([first, second])


def test_weights_are_compared_in_one_dtype_and_where_they_are_known(tmp_path: Path) -> None:
    """An engine knows weights only by name."""
    first, half = run(tmp_path / "first", "a1"), run(tmp_path / "half", "c3", "bfloat16")
    assert len(read([first, half, run(tmp_path / "served", "merged", engine="vllm")])) == 3


def test_a_loaded_model_is_called_as_the_folder_that_it_is_from(tmp_path: Path) -> None:
    """So that one report can combine runs of the command and of a script."""
    model = saved(tiny_llava(), tmp_path / "merged")
    write_vqav2(tmp_path / "set", 1)
    named: dict[str, Any] = {"data": tmp_path / "set", "keep_ratios": [0.25], "position_ids": ["original"]}
    evaluate(model, output=tmp_path / "a", strategies=["grid"], baselines=["unpruned"], **named)
    evaluate(load_model(model), output=tmp_path / "b", strategies=["random"], baselines=[], **named)
    assert {one.model for one in read([tmp_path / "a", tmp_path / "b"])} == {"merged"}
    records = [RunFolder(tmp_path / name).record["about"] for name in "ab"]
    assert [one["loaded_from"] for one in records] == [model, model]


# A page never shows a question that was not the one asked.


def write(data: Path, *asked: str) -> None:
    """Write the data set anew: a question, named by a letter, about each of as many images."""
    for number in range(len(asked)):
        sample_image((60 + number, 40)).save(data / f"{number}.png")
    lines = [{"image": f"{number}.png", "question": one, "answer": "x"} for number, one in enumerate(asked)]
    (data / "questions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Path]:
    """A run of the first and the third of four questions, and the folder of their data."""
    place = tmp_path_factory.mktemp("edited")
    (place / "set").mkdir()
    write(place / "set", *"abcd")
    model = saved(tiny_llava(), place / "model")
    named = {"strategies": ["grid"], "keep_ratios": [0.25], "baselines": ["unpruned"], "limit": 2}
    evaluate(model, output=place / "run", data=place / "set", position_ids=["original"], **named)  # pyright: ignore[reportArgumentType]
    return RunFolder(place / "run"), place / "set"


def shown(edited: RunFolder) -> list[str]:
    found = questions_of(edited, [Regression(one, one, str(edited.path)) for one in edited.answers().values()])
    return sorted(one.question.text[0] for one in found.values())


def test_unchanged_questions_are_shown_also_beside_others(edited: tuple[RunFolder, Path]) -> None:
    folder, data = edited
    for asked in ("abcd", "aXcd", "abcdX"):  # what the run did not ask may change
        write(data, *asked)
        assert shown(folder) == ["a", "c"]


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda data: write(data, *"bcd"), "with other own questions, right answers, images or frames"),
        (lambda data: write(data, "a"), "with own.questions=2 and not own.questions=1"),
        (lambda data: sample_image((9, 9)).save(data / "2.png"), "with other own questions, right answers, images"),
    ],
    ids=["a line deleted", "too few lines", "another image"],
)
def test_edited_questions_are_named(edited: tuple[RunFolder, Path], edit: Callable[[Path], None], what: str) -> None:
    folder, data = edited
    write(data, *"abcd")
    edit(data)
    with pytest.raises(SettingError, match="Restore what was asked, or evaluate again") as refused:
        shown(folder)
    assert str(refused.value).startswith(f"{data / 'questions.jsonl'}: changed since the run, {what}")
