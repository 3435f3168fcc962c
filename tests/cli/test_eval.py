"""`tokenprune eval`, on a tiny random model."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from helpers.files.evals import saved, write_refcoco, write_vqav2
from helpers.files.sets import save, write_lines
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune.evals.arguments.settings import arguments_of
from tokenprune.evals.cli import build_parser
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.tokens import VisualTokens

Eval = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    write_refcoco(folder)
    write_vqav2(folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved(tiny_llava(), tmp_path / "model")


@pytest.fixture
def run(model: str, folder: Path, tmp_path: Path) -> Eval:
    """Call the command on the tiny model and its scenes, writing to `run`."""
    defaults = ["--model", model, "--data", folder, "--output", tmp_path / "run"]
    return lambda *arguments: command("eval", *defaults, *arguments)


def test_two_tasks_are_printed_side_by_side(run: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--limit", 2, "--strategy", "grid", "fopru", "--keep-ratio", 0.25, "--position-ids", "original") == 0
    printed = capsys.readouterr().out
    for expected in (
        "unpruned",
        "9 of 36",
        "25 %",
        "REC Acc@0.5",
        "VQA accuracy",
        "(n = 2)",
        "REC mIoU",
        "tokenprune report",
    ):
        assert expected in printed
    rows = RunFolder(tmp_path / "run").results()
    assert [(row.strategy, row.task) for row in rows] == [
        (strategy, task)
        for strategy in ("unpruned", "Grid", "FoPru", "Random", "downsample")
        for task in ("rec", "vqa")
    ]
    assert (rows[0].dataset, rows[0].n, rows[0].scores) == ("scenes", 2, {"val": [None, None]})
    assert rows[0].model == "model"  # not its path on this machine
    answers = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 2 * len(rows)
    assert {(a["task"], a["id"], a["split"], a["score"]) for a in answers if a["strategy"] == "unpruned"} == {
        ("rec", "rec-20", "val", None),
        ("rec", "rec-21", "val", None),
        ("vqa", "vqa-42000", "", 0),
        ("vqa", "vqa-42001", "", 0),
    }
    record = RunFolder(tmp_path / "run").record
    assert record["identity"]["data"]["rec"]["questions"] == 2
    assert record["identity"]["setups"]["Random, keep ratio 0.25, position IDs original"]["seed"] == 0
    assert {"weights", "dtype", "device"} <= set(record["identity"]["model"])


def test_options_override_a_settings_file(run: Eval, tmp_path: Path) -> None:
    settings = tmp_path / "eval.toml"
    settings.write_text(
        'strategy = ["grid", "fopru:mode=row"]\nkeep-ratio = [0.5, 0.25]\nposition-ids = "compact"\n'
        'tasks = ["rec"]\nbaselines = "unpruned"\nsplit = "testA"\nlimit = 1\n'
    )
    assert run("--settings", settings, "--keep-ratio", 0.1) == 0
    rows = RunFolder(tmp_path / "run").results()
    assert [str(row.key) for row in rows] == [
        "unpruned, keep ratio 1, position IDs original",
        "Grid, keep ratio 0.1, position IDs compact",  # the command line takes precedence
        "FoPru row, keep ratio 0.1, position IDs compact",
    ]
    assert [list(row.scores) for row in rows] == [["testA"]] * 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.toml", 'engine = "vlm"\n[engine-options]\nmax_model_len = 512\nenforce_eager = true\n'),
        ("e.json", '{"engine": "vlm", "engine-options": {"max_model_len": 512, "enforce_eager": true}}'),
    ],
)
def test_a_table_in_a_settings_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    words = arguments_of(tmp_path / name, build_parser().parse_args(["eval"]).parser)
    assert build_parser().parse_args(["eval", *words]).engine_options == {"max_model_len": 512, "enforce_eager": True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('strateg = ["grid"]', "unknown option 'strateg'. Did you mean 'strategy'?"),
        ("strategy = grid", "line 1, column 12"),
        ('settings = "e.toml"', "cannot name another settings file; write its options here"),
    ],
)
def test_broken_settings_file(
    run: Eval, tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.toml").write_text(content)
    assert run("--settings", tmp_path / "e.toml") == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: tokenprune eval ")
    assert "error: argument --settings: " in said
    assert "e.toml: " in said
    assert message in said


@pytest.mark.parametrize(("limit", "n"), [(2, 2), (7, 3)])
def test_limit_is_the_most_questions_of_each_task(run: Eval, tmp_path: Path, limit: int, n: int) -> None:
    run("--strategy", "none", "--baselines", "unpruned", "--limit", limit)
    assert [row.n for row in RunFolder(tmp_path / "run").results()] == [n, n]


def test_a_task_none_of_whose_images_can_be_read(
    run: Eval, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run ends with a table and a report, in which no question of the task counts as wrong."""
    for path in (folder / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    asked = ["--tasks", "vqa", "--strategy", "grid", "--keep-ratio", 0.25, "--baselines", "unpruned"]
    assert run(*asked, "--on-error", "record") == 0
    assert "failed" in capsys.readouterr().out
    assert {(row.n, row.failed) for row in RunFolder(tmp_path / "run").results()} == {(0, 3)}
    assert command("report", tmp_path / "run", "--output", tmp_path / "out") == 0
    assert "VQA failed" in (tmp_path / "out" / "report.md").read_text()


def test_another_run_is_not_mixed_in(run: Eval, tmp_path: Path, folder: Path) -> None:
    quick = ["--strategy", "none", "--baselines", "unpruned"]
    assert run(*quick) == 0
    assert run(*quick) == 0  # nothing is left to ask
    said = run(*quick, "--limit", 2)
    assert "run.json: holds another run, with data.limit=None" in said
    assert "and not data.limit=2" in said
    assert f"Name another --output, or delete {tmp_path / 'run'} to start again. (To add strategies" in said
    assert "model.dtype='bfloat16'" in run(*quick, "--dtype", "bfloat16")
    path = next((folder / "images").glob("*42.jpg"))
    path.write_bytes(path.read_bytes() + b" ")
    said = run(*quick)
    assert "another run, with other vqa questions, right answers, images or frames. Name another --output" in said
    assert "digest" not in said
    write_vqav2(folder)  # restores the image
    saved(tiny_llava(seed=1), tmp_path / "model")
    assert "another run, with other weights of the model. Name another --output" in run(*quick)


def test_a_question_about_another_image_of_the_set_is_another_run(run: Eval, tmp_path: Path) -> None:
    folder, quick = tmp_path / "own", ["--strategy", "none", "--baselines", "unpruned", "--data", tmp_path / "own"]
    for image in (0, 1):
        save(folder / f"{image}.png")
    lines = [{"image": f"{image}.png", "question": "What is it?", "answer": "a box"} for image in (0, 1, 0)]
    write_lines(folder / "questions.jsonl", lines)
    assert run(*quick) == 0
    write_lines(folder / "questions.jsonl", [*lines[:2], lines[2] | {"image": "1.png"}])
    assert "another run, with own questions about other images. Name another --output" in run(*quick)


def test_evaluate_takes_a_loaded_model_and_a_strategy(model: str, folder: Path, tmp_path: Path) -> None:
    """The model stays unchanged, and the strategy need not be registered."""
    loaded, processor = load_model(model)

    class Last(tokenprune.ScoreStrategy):
        def score(self, tokens: VisualTokens) -> Any:
            return tokens.features.new_ones(tokens.n_visual).cumsum(0)

    options: dict[str, Any] = {"data": folder, "tasks": ["rec"], "baselines": ["unpruned"], "keep_ratios": [0.5]}
    rows = evaluate((loaded, processor), output=tmp_path / "a", strategies=[Last(keep_ratio=0.5)], **options)
    assert [row.strategy for row in rows] == ["unpruned", "Last", "Last"]
    assert rows == RunFolder(tmp_path / "a").results()
    assert not loaded._forward_pre_hooks
    same = evaluate(model, output=tmp_path / "b", strategies=[Last(keep_ratio=0.5)], **options)
    assert [row.scores for row in same] == [row.scores for row in rows]


def test_tasks_in_folders_of_their_own(tmp_path: Path) -> None:
    write_refcoco(tmp_path / "refcoco")
    write_vqav2(tmp_path / "vqav2")
    assert {sample.task for sample in load_questions(tmp_path)} == {"refcoco", "vqav2"}
    assert {sample.task for sample in load_questions(tmp_path, ["vqav2"])} == {"vqav2"}
    write_refcoco(tmp_path)
    assert {sample.task for sample in load_questions(tmp_path)} == {"refcoco", "vqav2", "rec"}


def test_a_model_is_named_without_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are shared, so they must not contain private paths."""
    model = tmp_path / "home" / "llava"
    model.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name(str(model)) == "home/llava"
    monkeypatch.chdir(model)
    assert (public_name(str(tmp_path / "home")), public_name(".")) == ("home", "llava")
    assert public_name("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"


def test_every_split_can_be_named() -> None:
    assert build_parser().parse_args(["eval", "--split", "all"]).split is None
    assert build_parser().parse_args(["eval", "--split", "val"]).split == "val"


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_an_output_that_cannot_be_written_is_said_before_the_model_loads(
    run: Eval, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenprune.evals.run.evaluate.load_model", lambda *_: pytest.fail("loaded first"))
    (tmp_path / "file").touch()
    said = run("--output", tmp_path / name)
    assert said.startswith(f"Error: {tmp_path / name}: cannot be a folder, because ")
    assert said.endswith(" is a file. Name another --output.")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "answers.jsonl").write_text("{\n")
    assert "answers.jsonl, line 1, column 2: broken JSON" in run()


def test_apart_from_leaves_out_calibration_images(
    run: Eval, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a run with a settings file can be paired with one that leaves out the images of its calibration."""
    image, other = (next((folder / "images").glob(f"*{number}.jpg")) for number in (11, 12))
    other.write_bytes(other.read_bytes() + b" ")
    digest = hashlib.sha256(image.read_bytes()).hexdigest()[:16]
    found, by_hand = tmp_path / "found.json", tmp_path / "by_hand.json"
    settings = {"strategy": "grid", "settings": {"keep_ratio": 0.5}}
    found.write_text(json.dumps({**settings, "search": {"data": {"images": {image.name: digest}}}}))
    by_hand.write_text(json.dumps(settings))
    rec = ["--tasks", "rec", "--split", "all", "--position-ids", "original", "--keep-ratio", 0.5]
    none = [*rec, "--strategy", "none", "--baselines", "unpruned"]
    assert run(*rec, "--strategy", found, "--baselines", "none", "--output", tmp_path / "a") == 0
    assert run(*none, "--output", tmp_path / "b") == 0
    together = ["report", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "report"]
    assert "a settings file, which leaves out the images that it was calibrated on" in (said := command(*together))
    assert "--apart-from FILE" in said
    assert "--apart-from FILE" in run(*none, "--apart-from", found, "--output", tmp_path / "b")  # a different run
    capsys.readouterr()
    assert run(*none, "--apart-from", found, by_hand, "--output", tmp_path / "c") == 0
    printed = capsys.readouterr().out
    assert "scenes: 2 of 3 questions are left out for all setups" in printed
    assert f"{by_hand}: no search wrote this file" in printed
    together[2] = tmp_path / "c"
    assert command(*together) == 0
    assert "Against the unpruned model" in capsys.readouterr().out
    assert run(*none, "--apart-from", tmp_path / "none.json") == 2


def test_the_current_folder_has_a_name(
    run: Eval, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the results of two sets would both have an empty name."""
    monkeypatch.chdir(folder)
    assert run("--data", ".", "--strategy", "none", "--baselines", "unpruned", "--limit", 1) == 0
    assert {row.dataset for row in RunFolder(tmp_path / "run").results()} == {"scenes"}


def test_brackets_are_printed(run: Eval, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read as markup, they would vanish, or make the command fail after all questions were asked."""
    lines = [{"image": "images/a.jpg", "question": "?", "answer": "a", "kind": kind} for kind in ("[red]", "[/x]")]
    next((folder / "images").glob("*42.jpg")).rename(folder / "images" / "a.jpg")
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run("--strategy", "none", "--baselines", "unpruned", "--output", tmp_path / "[a] run") == 0
    printed = capsys.readouterr().out
    assert all(it in printed for it in ("[/x] accuracy", "[red] accuracy", f"tokenprune report '{tmp_path}/[a] run'"))
