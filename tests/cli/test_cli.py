"""The command `tokenprune`: help, version, and error messages."""

import re
import subprocess
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, signature
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from helpers.files.rows import row
from helpers.files.search import write_scenes
from helpers.forks import forks, returned_in_fork

import tokenprune
from tokenprune.evals.adapt.adapt import adapt
from tokenprune.evals.arguments.parser import fraction
from tokenprune.evals.bench.inputs.rendered import KINDS
from tokenprune.evals.cli import COMMANDS, build_parser
from tokenprune.evals.models.loading import DTYPES
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.search.objective import STATES
from tokenprune.evals.storage import results_io
from tokenprune.evals.tune.tune import tune

ROOT = Path(__file__).parents[2]


def parser_of(name: str) -> ArgumentParser:
    (choices,) = (action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    return choices[name]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    shown = capsys.readouterr().out
    assert command() == 0  # no arguments: help
    assert capsys.readouterr().out == shown
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown, flags=re.MULTILINE)
    assert "\n  COMMAND\n" not in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(name, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: tokenprune {name} ")
    summary, *_ = (COMMANDS[name].run.__doc__ or "").splitlines()
    assert summary in " ".join(shown.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_with_its_default(name: str) -> None:
    """Options that are off by default, or change nothing by default, need not say so."""
    optional = {"adapter", "box", "output", "html", "gif", "settings", "into"}
    formatter = parser_of(name)._get_formatter()
    for action in parser_of(name)._actions:
        assert action.help, action.dest
        without = action.nargs == 0 or action.required or (action.dest in optional and action.default is None)
        assert without or "(default: " in (formatter._get_help_string(action) or ""), action.dest


@pytest.mark.parametrize("name", ["adapt", "tune"])
def test_a_switch_that_turns_something_off_names_no_default(name: str) -> None:
    shown = " ".join(parser_of(name).format_help().split())
    assert "--no-labels" in shown
    assert "(default: True)" not in shown


@pytest.mark.parametrize(
    ("name", "option", "known"),
    [
        ("bench", "image", KINDS),
        ("eval", "dtype", DTYPES),
        ("optimize", "state", STATES),
    ],
)
def test_a_command_offers_what_its_code_knows(name: str, option: str, known: tuple[str, ...]) -> None:
    """Commands repeat the values literally, because the modules that define them load torch."""
    (action,) = (action for action in parser_of(name)._actions if action.dest == option)
    assert action.choices == known


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    assert capsys.readouterr().out == f"tokenprune {tokenprune.__version__}\n"


@pytest.mark.parametrize("module", ["tokenprune", "tokenprune.evals"])
def test_as_a_module(module: str) -> None:
    run = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.startswith("usage: tokenprune" + (" eval" if module == "tokenprune.evals" else " [-h]"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evil"], "tokenprune: error: unknown command 'evil'. Did you mean 'eval'? Known: actions, "),
        (["eval", "--limit", "0"], "argument --limit: 0 is less than 1"),
        (["tune", "--seed", "-1"], "argument --seed: -1 is less than 0"),
        (["bench", "--memory", "nan"], "argument --memory: nan is not a finite number"),
        (["eval", "--limit", "few"], "argument --limit: invalid whole number value: 'few'"),
        (["eval", "--lim", "3"], "tokenprune eval: error: unrecognized arguments: --lim 3. Did you mean --limit?"),
        (["layers", "--limit", "3"], "unrecognized arguments: --limit 3. Did you mean --questions?"),
        (["models", ""], "argument NAME: empty, like a shell variable that is not set"),
        (["eval", "some/model"], "arguments: some/model. Write --model some/model, if that is the model, or"),
        (["bench", "llava"], "Write --model llava, if that is the model."),
        (["eval", "--keep-ratio", "25%"], "--keep-ratio: 25% is not a fraction above 0 and up to 1; write 0.25"),
        (["eval", "--output", " "], "argument --output: empty, like a shell variable that is not set"),
        (["serve", "--model", ""], "argument --model: empty, like a shell variable that is not set"),
        (["explain", "https://a.org/a.png", "?"], "https://a.org/a.png is an address; download the file, and write"),
        (["explain", "/", "?"], "argument IMAGE: / is a folder; name a file in it"),
        (["explain", __file__, "?", "--box", "1,", "2,", "3,", "4"], "argument --box: 1, is not a number; write one"),
        (["tune", "--max-loss", "1%"], "argument --max-loss: 1% is not a number; write one such as 0.5"),
        (["eval", "--engine-options", "a=1"], """; write it like '{"name": 1}'"""),
        (["report", "runs", "--model", "x"], "unrecognized arguments: --model x. Type: tokenprune report --help"),
        (["explain", __file__], "the following arguments are required: QUESTION"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        *(("25%", 0.25), ("25 %", 0.25), ("0,25", 0.25), ("50", 0.5), ("0.5%", 0.005)),
        *((meaningless, 0.25) for meaningless in ("1.5", "7", "0", "-0.5", "nan", "a quarter", "%")),
    ],
)
def test_what_is_no_fraction(written: str, instead: float) -> None:
    assert fraction("1") == 1
    with pytest.raises(ArgumentTypeError, match=rf"^{written} is not a fraction above 0 .*; write {instead:g}$"):
        fraction(written)


def test_other_errors_are_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: Any) -> None:
        """Fail."""
        int("no number")

    monkeypatch.setattr(COMMANDS["report"], "run", broken)
    with pytest.raises(ValueError, match="invalid literal"):
        command("report", "runs")


def without(missing: str, words: list[str]) -> Any:
    """Import the command anew without a package, run it, and return its exit."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tokenprune", missing)]:
        del sys.modules[name]
    sys.modules[missing] = None  # pyright: ignore[reportArgumentType]
    sys.meta_path[:] = [one for one in sys.meta_path if "jaxtyping" not in type(one).__module__]  # it takes time
    try:
        import_module("tokenprune.__main__").main(words)
    except SystemExit as end:
        return end.code


@forks
@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("optuna", ["optimize", "--questions", "1"], "optimize"),
        ("rich", ["layers", "--questions", "1"], "evals"),
        ("matplotlib", ["report", "runs"], "evals"),
    ],
)
def test_without_an_extra(missing: str, words: list[str], extra: str, tmp_path: Path) -> None:
    write_scenes(tmp_path)
    data = [] if words[0] == "report" else ["--data", str(tmp_path)]
    # In a fork: otherwise later tests would see two copies of modules that are imported again.
    said = returned_in_fork(lambda: without(missing, [*words, *data]))
    install = f'pip install "tokenprune-vlm[{extra}]", or in a clone: pip install -e ".[{extra}]"'
    assert said == f"This needs {missing}, which is not installed. Type: {install}"


def test_a_character_that_the_output_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For instance the dash in empty cells of tables."""
    scores = {"": [1.0] * 12}
    rows = [row("unpruned", "original", 1.0, scores), row("Grid", "original", 0.5, scores)]
    results_io.write(tmp_path / "rows.jsonl", rows)
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, "ascii", write_through=True))
    assert command("report", tmp_path / "rows.jsonl", "--output", tmp_path / "report") == 0
    assert rb"\u2013" in written.getvalue()


@pytest.mark.parametrize(("command", "function"), [("eval", evaluate), ("tune", tune), ("adapt", adapt)])
def test_help_shows_the_arguments_and_their_defaults(command: str, function: Callable[..., Any]) -> None:
    options = vars(build_parser().parse_args([command]))
    model, *others = signature(function).parameters.values()
    assert (model.name, model.kind) == ("model", Parameter.POSITIONAL_OR_KEYWORD)
    assert {one.kind for one in others} == {Parameter.KEYWORD_ONLY}
    defaults = {one.name: one.default for one in others if one.default is not one.empty and one.name != "console"}
    assert len(defaults) > 15
    assert {name: options[name] for name in defaults} == defaults
    with pytest.raises(TypeError, match="unexpected keyword argument 'keep_ration'"):
        function("model", output="out", data="data", keep_ration=0.5)
