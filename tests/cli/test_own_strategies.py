"""A user's own strategy, in a module in the working directory, works in every command that takes a strategy."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import command
from helpers.files.evals import sample_image, saved, write_refcoco
from helpers.tiny import tiny_llava

from tokenprune.evals.bench.inputs import shapes

MODULE = """
from dataclasses import dataclass

from tokenprune import ScoreStrategy, VFlowOpt


@dataclass(frozen=True)
class Norm(ScoreStrategy):
    p: int = 1

    def score(self, tokens):
        return tokens.features.float().norm(self.p, dim=-1)


@dataclass(frozen=True)
class Flow(VFlowOpt):
    extra: int = 0
"""
NAME, LABEL = "own_package.rules:Norm,p=2", "Norm 2"


@pytest.fixture(autouse=True)
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "rules.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "own_package"]:
        del sys.modules[name]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(saved(tiny_llava(), tmp_path / "model"))


def test_eval(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_refcoco(tmp_path / "scenes")
    options = ["--model", model, "--data", "scenes", "--limit", 1, "--keep-ratio", 0.25, "--baselines", "none"]
    assert command("eval", *options, "--strategy", NAME) == 0
    assert LABEL in capsys.readouterr().out
    said = command("eval", *options, "--strategy", "own_package.rules:Nrm")
    assert "unknown class of own_package.rules 'Nrm'. Did you mean 'Norm'" in said


@pytest.mark.parametrize(
    "words", [["explain", "a.jpg", "Where is it?", "--model", "model"], ["bench"]], ids=["explain", "bench"]
)
def test_it_is_measured(
    words: list[str], model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenprune.evals.explain.explain.MAX_NEW_TOKENS", 4)
    monkeypatch.setitem(shapes.SHAPES, "llava-1.5-0.5b", lambda: tiny_llava().config)
    sample_image().save("a.jpg")
    assert command(*words, "--rounds", 0, "--keep-ratio", 0.25, "--strategy", NAME) == 0
    assert LABEL in capsys.readouterr().out


def test_optimize(model: str, tmp_path: Path) -> None:
    write_refcoco(tmp_path / "scenes")
    options = ["--model", model, "--data", "scenes", "--split", "all", "--trials", 1, "--questions", 1]
    options += ["--keep-ratio", 0.5, "--no-progressive", "--output", "found.json"]
    assert command("optimize", *options, "--strategy", "own_package.rules:Flow,extra=3") == 0
    found = json.loads(Path("found.json").read_text())
    assert (found["strategy"], found["settings"]["extra"]) == ("own_package.rules:Flow", 3)
    assert found["settings"]["progressive"] is False
    said = command("optimize", *options, "--strategy", NAME)
    assert "optimize searches VFlowOpt's settings, and Norm does not have them" in said
