"""A run that is killed at any moment, or shared among processes, gives the same answers as an undisturbed one."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from helpers.asking import check_same
from helpers.commands import command
from helpers.files.evals import saved, write_vqav2
from helpers.forks import forked, forks
from helpers.tiny import tiny_llava

from tokenprune import SettingError
from tokenprune.errors import DataError
from tokenprune.evals.storage.answers import Answer, AnswerKey, from_line, to_line
from tokenprune.evals.storage.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[3]
N = 40
OPTIONS = ["--strategy", "fopru", "--keep-ratio", "0.25", "--position-ids", "original", "--baselines", "unpruned"]
BATCHES = ["--batch-tokens", "200"]  # of four questions


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for the tiny model and questions about one image, in small batches."""
    folder = tmp_path_factory.mktemp("resume")
    write_vqav2(folder / "scenes", N)
    return ["--model", saved(tiny_llava(), folder / "model"), "--data", str(folder / "scenes"), *OPTIONS, *BATCHES]


@pytest.fixture(scope="module")
def whole(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An undisturbed run."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert command("eval", *tiny, "--output", output) == 0
    return RunFolder(output)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def kill_when(options: list[str], output: Path, n_lines: int) -> None:
    """Start the command in a separate process, and kill it after it has written a number of lines."""
    process = forked(lambda: command("eval", *options, "--output", output))
    answers = output / "answers.jsonl"
    deadline = time.monotonic() + 240
    while not answers.is_file() or answers.read_bytes().count(b"\n") < n_lines:
        assert os.waitpid(process, os.WNOHANG) == (0, 0), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert os.waitpid(process, 0) == (process, signal.SIGKILL)


@forks
@pytest.mark.slow
def test_killed_twice(tiny: list[str], whole: RunFolder, tmp_path: Path) -> None:
    output = tmp_path / "run"
    for n_lines in (3, 50):
        kill_when(tiny, output, n_lines)
        assert n_lines <= len(RunFolder(output).answers()) < len(whole.answers())
        with pytest.raises(ValueError, match=r"run: unfinished, with \d+ of 80 answers"):
            RunFolder(output).results()
    survived = RunFolder(output).answers()
    assert command("eval", *tiny, "--output", output) == 0
    check_same(RunFolder(output), whole)
    assert {asked: RunFolder(output).answers()[asked] for asked in survived} == survived  # none was asked twice


def test_torn_at_any_byte(tiny: list[str], whole: RunFolder, tmp_path: Path) -> None:
    """A killed process leaves a beginning of the file. A partly written batch is completed."""
    content = (whole.path / "answers.jsonl").read_bytes()
    lines = content.split(b"\n")
    for n_lines, n_bytes in ((0, 5), (37, 40), (len(lines) - 2, len(lines[-2]))):
        output = tmp_path / f"{n_lines}-{n_bytes}"
        output.mkdir()
        shutil.copy(whole.path / "run.json", output)
        kept = b"".join(line + b"\n" for line in lines[:n_lines])
        (output / "answers.jsonl").write_bytes(kept + lines[n_lines][:n_bytes])
        assert len(RunFolder(output).answers()) == n_lines
        assert command("eval", *tiny, "--output", output) == 0
        check_same(RunFolder(output), whole)
        assert (output / "answers.jsonl").read_bytes().startswith(kept)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def one_of_two(rank: int, port: str, options: list[str], printed: Path) -> object:
    """Run `eval` as one of the processes that torchrun and `accelerate launch` start."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    PartialState._reset_state()  # training in this process may have set it
    with printed.open("w") as file, contextlib.redirect_stdout(file):
        return command("eval", *options)


@forks
@pytest.mark.slow
def test_two_processes_give_the_answers_of_one(tiny: list[str], whole: RunFolder, tmp_path: Path) -> None:
    """Two processes give bitwise the same answers as one. If they are stopped, one process can finish the run."""
    output, port, files = tmp_path / "run", free_port(), [tmp_path / "first", tmp_path / "second"]
    options = [*tiny, "--output", str(output)]
    started = [forked(partial(one_of_two, rank, port, options, file)) for rank, file in enumerate(files)]
    assert [os.waitpid(process, 0) for process in started] == [(process, 0) for process in started]
    assert files[0].read_text().count("tokenprune report") == 1
    assert files[1].read_text() == ""  # only the first process prints
    check_same(RunFolder(output), whole)
    shares = [(output / name).read_bytes() for name in ("answers.jsonl", "answers.1.jsonl")]
    assert [share.count(b"\n") for share in shares] == [2 * 32, 2 * 8]
    (output / "answers.1.jsonl").write_bytes(shares[1][: len(shares[1]) // 2])
    (output / "rows.jsonl").unlink()
    assert command("eval", *tiny, "--output", output) == 0
    check_same(RunFolder(output), whole)


@pytest.mark.slow
def test_accelerate_launches_two_processes(tiny: list[str], whole: RunFolder, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", free_port(), "-m", "tokenprune.evals", *tiny, "--output", str(tmp_path / "run")]
    done = subprocess.run(launch, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_same(RunFolder(tmp_path / "run"), whole)
    assert (tmp_path / "run" / "answers.1.jsonl").is_file()


def test_a_line_is_what_was_answered(whole: RunFolder) -> None:
    for answer in whole.answers().values():
        assert from_line(to_line(answer), "here") == answer


def test_broken_lines_are_named(whole: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "run")
    path = tmp_path / "run" / "answers.jsonl"
    first, second, *_ = path.read_bytes().split(b"\n")

    def read(*lines: bytes) -> dict[AnswerKey, Answer]:
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return RunFolder(tmp_path / "run").answers()

    assert len(read(first, second)) == 2
    with pytest.raises(ValueError, match=r"answers\.jsonl, line 2, column \d+: broken JSON: .*; delete the line"):
        read(first, second[:-9])
    with pytest.raises(ValueError, match=r"answers\.jsonl, line 1: not UTF-8"):
        read(b"\xff", second)
    with pytest.raises(ValueError, match=r"answers\.jsonl, line 2: no 'task'"):
        read(first, b'{"id": "1"}')
    with pytest.raises(ValueError, match=r"answers\.jsonl, line 3: vqa-\d+ appears twice under unpruned"):
        read(first, second, first)


def test_answers_of_nobody_knows_what(tiny: list[str], whole: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    assert "run: has answers but no run.json" in command("eval", *tiny, "--output", tmp_path / "run")
    with pytest.raises(DataError, match=r"nothing: no such folder\. `tokenprune eval --output"):
        RunFolder(tmp_path / "nothing").record  # noqa: B018


def test_other_versions_are_not_mixed_in(whole: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    record: dict[str, Any] = json.loads(json.dumps(run.record))
    record["identity"]["versions"]["transformers"] = "4.0.0"
    with pytest.raises(SettingError, match=r"with versions\.transformers='5\.\d+\.\d+' and not .*='4\.0\.0'\. Name"):
        run.begin(record["identity"], {})
    run.begin(run.record["identity"], {"model": "moved to another folder"})
