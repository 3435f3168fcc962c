"""Lines and tables as records."""

import json
from pathlib import Path

import pytest

from tokenprune.errors import DataError
from tokenprune.evals.reading.records import line_records, tsv_records

#: Separators that end a line for `str.splitlines`, but not in JSON or tables.
RARE = "\u2028\u2029\x85"


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"{n}{RARE}?"}, ensure_ascii=False) for n in range(2)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    records = line_records(path)
    assert [record["question"] for record in records] == [f"0{RARE}?", f"1{RARE}?"]
    assert [record.where for record in records] == [f"{path}, line 1", f"{path}, line 3"]


@pytest.mark.parametrize("quote", ["", '"'])
def test_nor_a_row_of_a_table(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(f"index\tquestion\n1\t{quote}a{RARE}\x0cb{quote}\n2\tc\n", encoding="utf-8")
    records = tsv_records(path)
    assert [record["question"] for record in records] == [f"a{RARE}\x0cb", "c"]
    assert [record.where for record in records] == [f"{path}, line 2", f"{path}, line 3"]


def test_blank_lines_of_a_table_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("index\tquestion\n1\ta\n\n2\tb\n\n", encoding="utf-8")
    assert [(record.where, record["question"]) for record in tsv_records(path)] == [
        (f"{path}, line 2", "a"),
        (f"{path}, line 4", "b"),
    ]


@pytest.mark.parametrize("value", ["9" * 400, "1e999", '"3"', "true"])
def test_a_number_is_finite(tmp_path: Path, value: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{{"start": {value}}}\n', encoding="utf-8")
    (record,) = line_records(path)
    with pytest.raises(DataError, match="line 1, 'start': expected a number"):
        record.number("start")
