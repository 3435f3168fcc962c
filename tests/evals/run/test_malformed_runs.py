"""Broken settings files, runs, results and models: each gives one sentence that names the file."""

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from helpers.files.evals import saved, write_vqav2
from helpers.files.malformed import DEEP, HUGE, Mutation, of_bytes, of_json
from helpers.tiny import tiny_llava

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.models.loading import load_model, load_processor
from tokenprune.evals.report import report
from tokenprune.evals.report.regressions import Regression, questions_of
from tokenprune.evals.run.calibration_images import calibrated_on
from tokenprune.evals.storage import files, results_io
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.strategies.parsing import parse
from tokenprune.strategies.settings import SettingsFile


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a data set and a finished run."""
    place = tmp_path_factory.mktemp("malformed")
    write_vqav2(place / "set", 2)
    saved(tiny_llava(), place / "model")
    assert command(*evaluation(place), "--output", place / "run") == 0
    return place


def evaluation(place: Path) -> list[str]:
    options = ["--strategy", "fopru", "--keep-ratio", "0.25", "--position-ids", "original", "--baselines", "none"]
    return ["eval", "--model", str(place / "model"), "--data", str(place / "set"), *options]


def tracebacks(found: Iterator[Mutation], read: Callable[[], object]) -> tuple[list[str], int]:
    """Read broken files. Return those that were not refused properly, and the number that were."""
    wrong, refused = [], 0
    for mutation in found:
        before = mutation.path.read_bytes()
        mutation.path.write_bytes(mutation.content or b"")
        try:
            read()
        except (DataError, SettingError) as error:
            refused += 1
            if mutation.path.name not in str(error):
                wrong.append(f"{mutation.what}: does not name the file: {error}")
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{mutation.what}: {type(error).__name__}: {error}")
        mutation.path.write_bytes(before)
    return wrong, refused


def of_file(path: Path) -> Iterator[Mutation]:
    content = path.read_bytes()
    yield from of_bytes(path, content)
    text = content.decode()
    yield from of_json(path, text if path.suffix == ".jsonl" else json.dumps(json.loads(text)))


def of_a_report(folder: Path) -> None:
    """Read what a report needs from a run's record. Missing questions are not an error."""
    report.read([folder])
    run = RunFolder(folder)
    answer = next(iter(run.answers().values()))
    with suppress(OSError, ValueError):
        questions_of(run, [Regression(answer, answer, str(folder))])


READ: dict[str, Callable[[Path], object]] = {
    "run.json": of_a_report,
    "answers.jsonl": lambda run: RunFolder(run).answers(),
    "rows.jsonl": lambda run: results_io.read([run / "rows.jsonl"]),
}


@pytest.mark.parametrize("name", READ)
def test_no_malformed_run_gives_a_traceback(place: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    wrong, refused = tracebacks(of_file(tmp_path / "run" / name), lambda: READ[name](tmp_path / "run"))
    assert not wrong, "\n".join(wrong)
    assert refused > (8 if name == "run.json" else 60)


def test_a_broken_line_of_results_is_to_be_restored(tmp_path: Path) -> None:
    """Dropping the line would silently lose a setup."""
    (tmp_path / "rows.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1.*broken JSON.*restore the file.*repeat its `tokenprune"):
        results_io.read([tmp_path / "rows.jsonl"])


def test_no_malformed_settings_file_gives_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    search = {"data": {"images": {"1.jpg": "0123"}}}
    settings = {"keep_ratio": 0.25, "layer": -2}
    content = {"strategy": "fopru", "settings": settings, "model": {"layers": 2}, "search": search}
    path.write_text(json.dumps(content))

    def read() -> None:
        found = SettingsFile.read(path)
        found.make()
        calibrated_on(found)

    wrong, refused = tracebacks(of_file(path), read)
    assert not wrong, "\n".join(wrong)
    assert refused > 30
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert SettingsFile.read(path).make().keep_ratio == 0.25


@pytest.mark.parametrize("text", [f"fopru:layer={'(' * 9999}", f"fopru:layer={HUGE}", f"fopru:layer={DEEP[:9999]}"])
def test_settings_on_the_command_line(text: str) -> None:
    with pytest.raises(SettingError, match="layer="):
        parse(text, keep_ratio=0.5)


@pytest.mark.parametrize("content", [DEEP, HUGE, "[", "3", '{"a": 1}', '{"limit": 1, "limit": 2}'])
@pytest.mark.parametrize("name", ["a.json", "a.toml"])
def test_options_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str) -> None:
    (tmp_path / name).write_text(content if name == "a.json" else f"x = {content}")
    assert command("eval", "--settings", tmp_path / name) == 2
    assert f"argument --settings: {tmp_path / name}" in capsys.readouterr().err


def test_options_in_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_bytes(b'{"data": "\xff"}')
    assert command("eval", "--settings", tmp_path / "a.json") == 2
    assert f"argument --settings: {tmp_path / 'a.json'}, line 1: not UTF-8" in capsys.readouterr().err
    assert command("eval", "--settings", tmp_path / "b.json") == 2
    assert f"argument --settings: {tmp_path / 'b.json'}: no such file" in capsys.readouterr().err
    for value in ("null", '["runs", null]'):  # otherwise `None` would be the name of a folder, for example
        (tmp_path / "a.json").write_text(f'{{"output": {value}}}')
        assert command("eval", "--settings", tmp_path / "a.json") == 2
        assert "a.json: output is null; give it a value, or leave it out" in capsys.readouterr().err
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"data": "nowhere"}')  # with a byte order mark
    assert "nowhere: no such folder" in command("eval", "--settings", tmp_path / "a.json")


def test_a_second_eval_changes_nothing(place: Path, tmp_path: Path) -> None:
    """It would extend the run, and the first could not resume from the changed `run.json`."""
    shutil.copytree(place / "run", tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with RunFolder(tmp_path / "run").writing():
        said = command(*evaluation(place), "--strategy", "fopru", "grid", "--output", tmp_path / "run")
        assert "another run is writing it" in said
        assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    said = command(*evaluation(place), "--limit", 1, "--output", tmp_path / "run")
    assert "holds another run" in said
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_mistakes_are_said_before_the_weights_load(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageTextToText

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", load)
    output = ["--output", tmp_path / "run"]
    for options, said in {
        ("--strategy", "fopro"): "Did you mean 'fopru'",
        ("--tasks", "poep"): "Did you mean 'pope'",
        ("--data", str(tmp_path / "nowhere")): "nowhere: no such folder",
        ("--split", "nowhere"): "no split 'nowhere'",
        ("--image-root", str(tmp_path / "nowhere")): "nowhere: no such folder of images",
        ("--baselines", "downsampled"): "Did you mean 'downsample'",
    }.items():
        assert said in command(*evaluation(place), *options, *output)
    search = ["optimize", "--model", place / "model", "--data", place / "set", "--split", "all", "--questions", 2]
    assert "settings.json" in command(*search, "--output", tmp_path / "settings.txt")
    assert "no split 'val'" in command(*search, "--split", "val", "--output", tmp_path / "settings.json")
    (tmp_path / "file").touch()
    said = command(*search, "--output", tmp_path / "file" / "settings.json")
    assert said == f"Error: {tmp_path / 'file'}: cannot be a folder, because it is a file. Name another --output."
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["run.json", "answers.jsonl"])
def test_a_report_of_one_of_a_runs_files(place: Path, tmp_path: Path, name: str) -> None:
    said = command("report", place / "run" / name, "--output", tmp_path)
    assert said == f"Error: {place / 'run' / name}: a file of a run, without its results; name the folder: {place}/run"
    assert command("report", place / "run" / "rows.jsonl", "--output", tmp_path) == 0
    assert "no split 'test'; it has none. Leave --split out" in command("report", place / "run", "--split", "test")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/at/all", "no such folder; --model takes a folder with a config.json or a Hugging Face name"),
        ("./nowhere", "no such folder"),
        ("https://huggingface.co/a/b-1.5/tree/main", "an address; write --model a/b-1.5"),
        ("https://a.org/b/c", "no such folder"),
        ("{}/set", "no config.json in this folder"),
        ("{}/broken", "config.json, line 1, column 2: broken JSON: Expecting property name"),
        (
            "{}/text",
            "config.json describes a 'gpt2' model, which transformers' AutoModelForImageTextToText does not load",
        ),
    ],
)
def test_unknown_models(place: Path, name: str, said: str) -> None:
    for folder, content in (("broken", "{"), ("text", '{"model_type": "gpt2"}')):
        (place / folder).mkdir(exist_ok=True)
        (place / folder / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"^[^\n]*$") as caught:
        load_processor(name.format(place))
    assert said in str(caught.value)
    assert name.format(place) in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "said"), [("*.safetensors", "cannot read the weights"), ("tokenizer.json", "cannot read the processor")]
)
def test_models_of_which_a_part_is_missing(place: Path, tmp_path: Path, missing: str, said: str) -> None:
    shutil.copytree(place / "model", tmp_path / "model", ignore=shutil.ignore_patterns(missing))
    with pytest.raises(DataError, match=rf"^[^\n]*{said} of this folder [^\n]*$"):
        load_model(str(tmp_path / "model"))


def test_a_full_disk_is_named(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up while answers are appended; once there is room, the same command resumes."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    said = command(*evaluation(place), "--output", tmp_path / "run")
    path = tmp_path / "run" / "answers.jsonl"
    assert said.startswith(f"Error: {path}: cannot be written: No space left on device. Make room and repeat")
    monkeypatch.undo()
    assert command(*evaluation(place), "--output", tmp_path / "run") == 0
    assert len(RunFolder(tmp_path / "run").results()) == 1
    with pytest.raises(DataError, match="full: cannot be written"):
        _fill(tmp_path)


def _fill(folder: Path) -> None:
    (folder / "full.unfinished").symlink_to("/dev/full")
    files.replace(folder / "full", "x")


def test_a_run_of_another_version_is_told_what_to_do(tmp_path: Path) -> None:
    identity = {"model": "m", "data": {}, "configurations": {}}  # the former name of setups
    (tmp_path / "run.json").write_text(json.dumps({"identity": identity, "about": {}}))
    with pytest.raises(DataError, match=r"no 'setups', so another version .* delete .* to start again"):
        RunFolder(tmp_path).begin({"model": "m", "data": {}, "setups": {}}, {})
