"""Tasks of the user's own modules: `--tasks my_module:MyTask`."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.files.evals import tiny_processor
from helpers.files.sets import save, write_json
from helpers.tiny import tiny_llava

from tokenprune.errors import SettingError
from tokenprune.evals import evaluate
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.tasks import TASKS, find_task

README = Path(__file__).parents[3] / "evals" / "tasks" / "README.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with the example of the documentation, its data, and broken modules."""
    (example,) = re.findall(r"```python\n(\"\"\"Road signs.*?)```", README.read_text(), re.DOTALL)
    for name, text in {
        "signs": example,
        "unfinished": example.replace("def question", "def questoin"),
        "unnamed": example.replace("    metric =", "    metrik ="),
        "shapeless": example.replace("    forms =", "    form ="),
    }.items():
        (tmp_path / f"user_{name}.py").write_text(text)
    write_json(tmp_path / "signs.json", [{"id": 1, "file": "1.png", "number": "30"}])
    save(tmp_path / "images" / "1.png")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in TASKS if ":" in name]:
        del TASKS[name]


def test_the_documented_task_is_evaluated(folder: Path) -> None:
    (question,) = load_questions(folder, ["user_signs:Signs"])
    assert question.id == "user_signs:Signs-1"
    assert [question.score(answer) for answer in ("30.", "50", "")] == [1, 0, None]
    setups = {"strategies": ["grid"], "keep_ratios": [0.25], "baselines": ["unpruned"]}
    rows = evaluate(
        (tiny_llava(), tiny_processor()), output=folder / "run", data=folder, tasks=["user_signs:Signs"], **setups
    )
    assert {(row.task, row.metric, row.n) for row in rows} == {("user_signs:Signs", "accuracy", 1)}
    assert find_task("user_signs:Signs").title == "Signs"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("signs", "unknown task 'signs'.* A task of your own is written my_module:MyTask"),
        ("pop", "unknown task 'pop'. Did you mean 'pope'"),
        ("user_signs:Sings", "task 'user_signs:Sings': unknown class of user_signs 'Sings'. Did you mean 'Signs'"),
        (
            "user_signs:exact",
            "exact is not a subclass of tokenprune.evals.tasks.base.task.Task. Derive",
        ),
        ("user_sings:Signs", "user_sings cannot be imported .* on PYTHONPATH"),
        ("user_signs.py:Signs", "user_signs.py is a file. Write its module: user_signs:Signs"),
        ("user_unfinished:Signs", r"Signs\(name, title\) failed: .*abstract.* question"),
        ("user_unnamed:Signs", "Signs has no metric. Define it"),
        ("user_shapeless:Signs", "Signs has no forms. Define it"),
    ],
)
def test_bad_names(folder: Path, name: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        load_questions(folder, [name])
