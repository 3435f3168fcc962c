"""A broken file of a set gives an error that names it, never different questions or a traceback."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers.files.malformed import Mutation, mutations
from helpers.files.sets import write_parquet
from helpers.files.tasks import SETS, VIDEO_SETS

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


CHOICE = [{"video": "v", "question": "q", "candidates": ["a"], "answer": "b"}]
TYPES = [{"answer": "dog", "type": -1, "question_id": f"v_1QIUV7WYKXg_{n}"} for n in (3, 4)]


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("pope", "coco_pope_random.json", '{"a": 1}\n{"a":', r"random\.json, line 2, column 6: broken JSON"),
        ("lrsvqa", "LRS_VQA_merged.jsonl", "3\n", r"merged\.jsonl, line 1: expected an object, found int 3"),
        ("mmbench", "mmbench_dev.tsv", "index\timage\n1\ta\n2\n", r"dev\.tsv, line 3: 1 fields where line 1 names 2"),
        ("mme", "existence/0001.txt", "Is it? Yes\n", r"0001\.txt, line 1: expected QUESTION<tab>ANSWER"),
        ("mme", "existence/0001.txt", "Is it?\tMaybe\nIs it?\tNo\n", r"0001\.txt, line 1: answer 'Maybe' is neither"),
        ("docvqa", "val_v1.0_withQT.json", '{"data": [\n{]}', r"QT\.json, line 2, column 2: broken JSON"),
        ("mvbench", "json/moving_count.json", CHOICE, r"count\.json\[0\]: answer 'b' is none of the candidates"),
        ("mvbench", "json/other.json", [], r"other\.json: not one of MVBench's tasks"),
        ("egoschema", "subset_answers.json", {"0074f737": 5}, r"questions\.json\[0\]: the answer is option 5 of 5"),
        ("egoschema", "subset_answers.json", 5, r"subset_answers\.json: expected an object, found int 5"),
        ("activitynetqa", "test_a.json", [], r"test_q\.json\[0\]: no answer to 'v_1QIUV7WYKXg_3' in test_a\.json"),
        ("activitynetqa", "test_a.json", TYPES, r"test_q\.json\[0\]: type -1 is not one of 0 to 8"),
    ],
)
def test_what_is_broken_and_where(tmp_path: Path, name: str, file: str, content: Any, message: str) -> None:
    (SETS | VIDEO_SETS)[name, "published"](tmp_path)
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message):
        TASKS[name].load(tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("mmbench", "mmbench_dev.tsv", "iVBO", "****", r"dev\.tsv, line 2, image: broken base64 image"),
        ("visual7w", "dataset_v7w_pointing.json", '"answer": 1', '"answer": 8', r"qa_pairs\[0\]: box 8 is not among"),
    ],
)
def test_what_refers_to_nothing(tmp_path: Path, name: str, file: str, old: str, new: str, message: str) -> None:
    SETS[name, "published"](tmp_path)
    (tmp_path / file).write_text((tmp_path / file).read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        TASKS[name].load(tmp_path)[0].open_images()
