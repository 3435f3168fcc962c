"""Rows, and the files that they are kept in."""

import json
from pathlib import Path

import pytest
from helpers.files.rows import row

from tokenprune.evals.storage.results import FAILED, digest
from tokenprune.evals.storage.results_io import read, to_line

RIGHT_AND_WRONG = row("Grid", "original", 0.25, {"val": [1.0, 0.0, None, None], "test": [1.0, 1.0]})


def test_numbers_follow_from_the_scores() -> None:
    assert (RIGHT_AND_WRONG.n, RIGHT_AND_WRONG.accuracy, RIGHT_AND_WRONG.unparsable) == (6, 0.5, 2)
    assert RIGHT_AND_WRONG.interval[0] < 0.5 < RIGHT_AND_WRONG.interval[1]


def test_a_split_is_not_paired_with_the_whole() -> None:
    val = RIGHT_AND_WRONG.of_split("val")
    assert (val.n, val.accuracy, val.unparsable) == (4, 0.25, 2)
    assert val.questions != RIGHT_AND_WRONG.questions  # must not be paired with the whole set
    with pytest.raises(ValueError, match="rec of scenes: no split 'train'; it has val, test"):
        RIGHT_AND_WRONG.of_split("train")


def test_no_question_could_be_asked(tmp_path: Path) -> None:
    failed = row("Grid", "original", 0.25, {"val": [FAILED, FAILED]})
    record = json.loads(to_line(failed), parse_constant=pytest.fail)
    assert (record["n"], record["failed"], record["accuracy"], record["interval"]) == (0, 2, None, None)
    (tmp_path / "rows.jsonl").write_text(to_line(failed) + "\n")
    assert read([tmp_path / "rows.jsonl"]) == [failed]


def test_a_single_image_gives_no_interval() -> None:
    record = json.loads(to_line(row("Grid", "original", 0.25, {"": [0.3]})), parse_constant=pytest.fail)
    assert (record["accuracy"], record["interval"]) == (0.3, None)


def test_other_questions_or_another_order_have_another_digest() -> None:
    assert digest(["rec-1", "rec-2"]) == digest(["rec-1", "rec-2"])
    assert len({digest(ids) for ids in (["rec-1", "rec-2"], ["rec-2", "rec-1"], ["rec-1"], ["rec-1rec-2"])}) == 4


def test_binary_scores_are_a_character_each() -> None:
    record = json.loads(to_line(RIGHT_AND_WRONG))
    assert record["scores"] == {"val": "10--", "test": "11"}
    assert (record["n"], record["accuracy"], record["unparsable"]) == (6, 0.5, 2)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    sure = {"metrics": {"F1": 0.5}, "intervals": {"F1": (0.25, 0.75)}}
    soft = row("Grid", "compact", 0.25, {"": [0.3, None, 1.0, 0.9]}, task="vqa", **sure)
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    one.write_text(f"{to_line(RIGHT_AND_WRONG)}\n{to_line(soft)}\n")
    two.write_text(f"{to_line(RIGHT_AND_WRONG)}\n")  # for example, both runs began with the unpruned model
    assert read([one, two]) == [RIGHT_AND_WRONG, soft]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (to_line(RIGHT_AND_WRONG)[:-5], r"rows\.jsonl, line 1, column \d+: broken JSON"),
        ('{"scenes": "scenes"}', r"line 1: no 'model'"),
        ("", r"rows\.jsonl: no results"),
        (
            to_line(RIGHT_AND_WRONG).replace('"images"', '"pictures"'),
            r'line 1: written before .* rename the key "pictures"',
        ),
        (
            f"{to_line(RIGHT_AND_WRONG)}\n{to_line(row('Grid', 'original', 0.25, {'val': [1.0]}))}",
            r"line 2: rec, Grid appears twice, with different scores, first in .*line 1\. Leave out one",
        ),
        (  # a different task, so that both would share a line of a table
            "\n".join(
                to_line(row("FoPru 2", "original", 0.25, {"": [1.0]}, task=task, settings={"keep_ratio": 0.25} | other))
                for task, other in (("rec", {"layer": 2, "cells": None}), ("vqa", {"layer": None, "cells": 2}))
            ),
            r"line 2: FoPru 2, .* and (cells|layer)=(2|None) in .*line 1, so one name stands for two setups\. Report",
        ),
    ],
    ids=["cut off", "other file", "empty", "version 0.1", "twice", "other settings"],
)
def test_a_broken_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read([path])


def test_rows_of_older_runs_are_read(tmp_path: Path) -> None:
    """They have no metrics, or metrics without intervals, and use `scenes` for the data set."""
    path, record = tmp_path / "rows.jsonl", json.loads(to_line(RIGHT_AND_WRONG))
    for newer in ("intervals", "metrics"):
        del record[newer]
        path.write_text(json.dumps(record) + "\n")
        assert read([path]) == [RIGHT_AND_WRONG]
    record["scenes"] = record.pop("dataset")
    path.write_text(json.dumps(record) + "\n")
    assert read([path]) == [RIGHT_AND_WRONG]
