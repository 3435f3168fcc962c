"""`tokenprune explain`: its table, files and errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from helpers.files.evals import sample_image, saved
from helpers.tiny import tiny_llava
from PIL import Image

BOX = 30, 10, 45, 30


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit answers: a random model does not stop on its own."""
    monkeypatch.setattr("tokenprune.evals.explain.explain.MAX_NEW_TOKENS", 4)
    monkeypatch.setattr("tokenprune.evals.explain.page.SLIDER", (0.5,))


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Any]:
    model = saved(tiny_llava(), tmp_path / "model")
    sample_image().save(tmp_path / "a.jpg")
    return lambda *arguments, of="a.jpg": command(
        "explain", tmp_path / of, "Where is it?", "--model", model, "--rounds", 1, *arguments
    )


def test_the_command(ask: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = ["--output", tmp_path / "new" / "kept.png", "--html", tmp_path / "new" / "kept.html"]
    asked = ["--strategy", "grid", "fopru", "--keep-ratio", 0.5, 0.25, "--box", *BOX]
    assert ask(*asked, "--position-ids", "original", "compact", *written) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if line.split()[1:2] in (["Grid"], ["FoPru"], ["unpruned"])]
    pruned = [(name, ids) for name in ("Grid", "FoPru") for ids in ("original", "compact")]
    assert [(line[1], line[3]) for line in lines] == [("unpruned", "\N{EN DASH}"), *2 * pruned]
    for expected in ("9 of 36", "18 of 36", "36 of 36", "25%", "IoU", "no box", "to unpruned"):
        assert expected in printed
    with Image.open(tmp_path / "new" / "kept.png") as drawn:
        assert drawn.width > 800
    data = (tmp_path / "new" / "kept.html").read_text().split('id="data">')[1].split("</script>")[0]
    assert len(json.loads(data)["outcomes"]) == 2 * 2 * 2


def test_paths_are_printed_as_they_are(
    ask: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich would read brackets as markup, and a name between colons as an emoji."""
    output = tmp_path / "[red]" / ":cat:.png"
    assert ask("--strategy", "grid", "--keep-ratio", 0.5, "--output", output) == 0
    assert f"Writtento{output}" in "".join(capsys.readouterr().out.split())


def test_errors_are_a_sentence(ask: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'fopru'" in ask("--strategy", "fopro")
    assert ask("--position-ids", "compct") == 2
    assert "argument --position-ids: invalid choice: 'compct'" in capsys.readouterr().err
    for box in ((45, 10, 30, 30), (30, 10, "nan", 30), (30, 10, "inf", 30)):
        assert ask("--box", *box) == 2
        assert "argument --box: " in capsys.readouterr().err
    whole_file = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole_file[: len(whole_file) // 2])
    assert "half.jpg: truncated or broken image" in ask(of="half.jpg")
    assert ask(of="nowhere.jpg") == 2
    assert "argument IMAGE: " in (said := capsys.readouterr().err)
    assert "nowhere.jpg: no such file" in said


def test_an_image_that_the_processor_refuses(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As Qwen-VL's does if an image is 200 times as wide as high."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("absolute aspect ratio must be smaller than 200, got 500.0")

    monkeypatch.setattr("transformers.CLIPImageProcessor.__call__", refuse)
    said = ask("--strategy", "grid")
    assert said.startswith("Error: the image of 60 x 40 px: LlavaProcessor refuses it: absolute aspect ratio must")


def test_what_cannot_be_drawn_or_written_is_said_before_the_model_loads(
    ask: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenprune.evals.models.loading.load_model", lambda *_: pytest.fail("loaded first"))
    for option, name, right in (
        ("--output", "a.foo", "a.png"),
        ("--output", "a", "a.png"),
        ("--gif", "a.png", "a.gif"),
    ):
        assert f"Error: {option} {tmp_path / name}: " in (said := ask(option, tmp_path / name))
        assert said.endswith(f"Write {tmp_path / right}")
    (tmp_path / "file").touch()
    for option, name in (("--output", "a.png"), ("--html", "a.html")):
        said = f"Error: {tmp_path / 'file'}: cannot be a folder, because it is a file. Name another {option}."
        assert ask(option, tmp_path / "file" / name) == said
    assert ask("--html", tmp_path) == f"Error: {tmp_path}: is a folder; name a file in it with --html."
    assert "--frames is for videos, and " in ask("--frames", 4)
    assert "--box: the box (0.1, 0.1, 0.5, 0.5) is in fractions" in ask("--box", 0.1, 0.1, 0.5, 0.5)
    assert "reaches outside the image of 60 x 40 px" in ask("--box", 30, 10, 45, 60)
    assert "downsample prunes nothing" in ask("--strategy", "downsample")
    assert "setup Grid, keep ratio 0.5, position IDs original appears twice" in ask("--strategy", "grid", "grid")


def test_characters_that_no_font_has(
    ask: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tokenprune.evals.explain.fonts.OTHERS", ())
    monkeypatch.setattr("tokenprune.evals.explain.outcomes.Explanation.verdict", lambda *_: "杯子")
    assert ask("--strategy", "grid", "--keep-ratio", 0.5, "--output", tmp_path / "a.png") == 0
    assert "No installed font has 子 杯: the image shows boxes instead." in " ".join(capsys.readouterr().out.split())


def test_an_unknown_format_of_boxes_is_said(
    ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tokenprune.evals.models.prompt_styles.STYLE_OF_FAMILY", {})
    quick = ["--strategy", "grid", "--keep-ratio", 0.5, "--rounds", 0]
    assert ask(*quick) == 0
    assert "is unknown" not in capsys.readouterr().out
    assert ask(*quick, "--box", *BOX) == 0
    assert "How llava models write boxes is unknown: LLaVA's format is assumed" in capsys.readouterr().out


def test_what_was_not_timed_has_no_column(ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("--strategy", "grid", "--keep-ratio", 0.5) == 0
    assert "TTFT" in capsys.readouterr().out
    assert ask("--strategy", "grid", "--keep-ratio", 0.5, "--rounds", 0) == 0
    assert "TTFT" not in (printed := capsys.readouterr().out)
    assert "18 of 36" in printed
