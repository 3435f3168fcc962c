"""The pieces of `make gpu`."""

import json
import shlex
import sys
import time
from pathlib import Path

import pytest

from tokenprune.evals.cli import build_parser
from tokenprune.evals.dev.gpu import __main__ as gpu
from tokenprune.evals.dev.gpu.pieces import PIECES, Piece

VALUES = {"python": sys.executable, "vllm": sys.executable, "out": "runs", "device": "cuda"}


@pytest.mark.parametrize("sizes", ["on_gpu", "on_cpu"])
@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)
def test_its_commands_parse(piece: Piece, sizes: str) -> None:
    """All of their files exist, and all options of our commands."""
    text = piece.command.format(**VALUES, sizes=getattr(piece, sizes)).replace("\\\n", " ")
    words = shlex.split(text.replace("$", ""), comments=False)
    for word in words:
        assert not word.startswith("tests") or Path(word).exists(), word
    for line in text.replace("&&", "\n").splitlines():
        words = shlex.split(line)
        if words[1:3] == ["-m", "tokenprune"] and words[3] != "serve":
            assert build_parser().parse_known_args(words[3:])[1] == []


def test_what_has_passed_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A piece that is stopped takes along what it has started, and is run again."""
    started = tmp_path / "started"
    pieces = [
        Piece("good", f"echo {{device}} {{sizes}} >> {started}", "large", "small"),
        Piece("slow", f"(sleep 3; echo late >> {started}) & sleep 60"),
        Piece("lacking", "true", needs=("no-such-program",)),
    ]
    monkeypatch.setattr(gpu, "PIECES", pieces)
    monkeypatch.setattr(gpu, "SECONDS", 0.5)
    monkeypatch.setattr(sys, "argv", ["gpu", "--cpu", "--output", str(tmp_path)])
    assert [gpu.main(), gpu.main()] == [1, 1]
    time.sleep(3)
    assert started.read_text() == "cpu small\n"
    assert json.loads((tmp_path / "slow.json").read_text())["status"] == "stopped after 0.5 s"
    said = capsys.readouterr().out
    assert said.count("good: passed before") == 1
    assert said.count("lacking: left out, because no-such-program cannot be found") == 2
