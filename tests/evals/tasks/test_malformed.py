"""A broken file of a set gives an error that names it, never different questions or a traceback."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers.files.malformed import Mutation, mutations
from helpers.files.sets import write_parquet
from helpers.files.tasks import SETS

from tokenprune.errors import DataError
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question

ANSWERS = ("A", "yes", "no", "0.1", "[0.50, 0.25, 0.75, 0.75]", "table")
#: Mutations that change the questions but break no rule: patterns of "file, mutation" by task; "" stands for any task.
VALID = {
    "": r"(question_?[iI]d|qa_id): (3|'x'|text|a number)$",  # IDs are numbers in some forms, strings in others
    "ai2d": r"csv, removed|Which (is it|letter)\?: missing|parquet, every record twice",
    "chartqa": r"removed|every record twice",  # records have no IDs
    "gqa": r"types(\.structural)?: (None|null|\{\}|missing)|parquet, id: a number",
    "hallusionbench": "set_id: a number",
    "mmbench": r"(B|category|hint|split): (null|missing)|tsv, (question|[A-D]|hint|split|category): '",
    "mathvista": "unit: (missing|null)",
    "mme": "removed",
    "mmmu": "removed",
    "ocrbench": "every record twice",
    "own": r"(answer|kind|split|id|box(\[0\])?): (None|null|missing|3|\['x'\]|1\.5|text)",
    "pope": r"removed|category: (null|missing)",
    "refcoco": r"bbox\[0\]: 1.5",
    "scienceqa": r"(hint|subject): (None|null|missing)|parquet, every record twice",
    "screenspot": r"every record twice|removed|data_(type|source): |bbox(\[0\])?: (1.5|a number)",
    "visual7w": r"(width|height|x|y): 1.5",
}


def asked(questions: Sequence[Question]) -> list[Any]:
    """Return everything that determines an answer and its score. Reads the images."""
    return [
        (
            question.id,
            question.text,
            question.split,
            question.category,
            question.group,
            [image.tobytes() for image in question.open_images()],
            [question.score(answer) for answer in ANSWERS],
        )
        for question in questions
    ]


def outcome(name: str, folder: Path, mutation: Mutation, whole: list[Any]) -> str | None:
    """Return what is wrong with the handling of a broken file; None if it gave a good error or was not needed."""
    try:
        found = asked(TASKS[name].load(folder))
    except DataError as error:
        said = str(error)
        return None if mutation.path.name in said or mutation.content is None else f"does not name the file: {said}"
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    done = f"{mutation.path.name}, {mutation.what}"
    valid = found == whole or any(re.search(VALID[key], done) for key in ("", name) if key in VALID)
    return None if valid else "accepted, with other questions"


@pytest.mark.filterwarnings("ignore:.*are repeated within their split")  # RefCOCO's refs, which are then asked once
@pytest.mark.parametrize(("name", "form"), SETS)
def test_malformed_sets_are_refused_by_name(tmp_path: Path, name: str, form: str) -> None:
    (tmp_path / "set").mkdir()
    SETS[name, form](tmp_path / "set")
    whole = asked(TASKS[name].load(tmp_path / "set"))
    wrong = []
    for mutation in mutations(tmp_path / "set"):
        before = mutation.path.read_bytes()
        if mutation.content is None:
            mutation.path.unlink()
        else:
            mutation.path.write_bytes(mutation.content)
        found = outcome(name, tmp_path / "set", mutation, whole)
        if found is not None:
            wrong.append(f"{mutation.path.relative_to(tmp_path / 'set')}, {mutation.what}: {found[:160]}")
        mutation.path.write_bytes(before)
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", ["docvqa", "textvqa", "vizwiz", "vqav2"])
@pytest.mark.parametrize("answers", [None, [], ["", ""]])
def test_answers_that_the_hub_does_not_have(tmp_path: Path, name: str, answers: Any) -> None:
    """Its TextVQA has ten empty ones for each question of the test split, to which every answer was wrong."""
    SETS[name, "hub"](tmp_path)
    (path,) = tmp_path.rglob("val*.parquet")
    rows = [row | {"answers": answers} for row in pq.read_table(path).to_pylist()]
    test = path.with_name("test-00000-of-00001.parquet")
    write_parquet(test, rows)
    with pytest.raises(DataError, match=r"test-.*\.parquet, row 0: has no answers\. The test split has none; use"):
        TASKS[name].load(tmp_path)
    assert TASKS[name].load(tmp_path, path.name.partition("-")[0])
