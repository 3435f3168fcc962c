"""`tokenprune bench`: the models that it builds, the command, and its file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import command
from helpers.families import FAMILIES
from helpers.files.evals import saved
from helpers.models.video_models import saved_qwen
from helpers.tiny import SIDE, tiny_llava
from transformers.utils.import_utils import is_flash_attn_2_available

from tokenprune.evals.bench.figures import figures
from tokenprune.evals.bench.inputs import build, prompts, shapes
from tokenprune.evals.bench.record import Record


@pytest.mark.parametrize(
    ("shape", "billions", "layers", "n_visual"),
    [
        ("internvl3.5-1b", 0.44, 28, 256),
        ("llava-1.5-0.5b", 0.36, 24, 576),
        ("llava-1.5-7b", 6.48, 32, 576),
        ("llava-onevision-0.5b", 0.36, 24, 3699),
        ("llava-onevision-7b", 6.53, 28, 3699),
        ("qwen2.5-vl-3b", 2.77, 36, 576),
    ],
)
def test_shapes_are_those_of_published_models(shape: str, billions: float, layers: int, n_visual: int) -> None:
    """Parameters and layers are counted in the decoder, as published."""
    config = shapes.config_of(shape)
    with torch.device("meta"):
        model: Any = build.AutoModelForImageTextToText.from_config(config)
    decoder = model.model.language_model.layers
    assert len(decoder) == layers
    assert sum(p.numel() for p in decoder.parameters()) == pytest.approx(billions * 1e9, rel=0.01)
    assert prompts.count_of(model, prompts.image_of(config, 672, torch.Generator())) == n_visual


def test_built_models_are_ready() -> None:
    model = build.build("tiny", tiny_llava().config, torch.bfloat16, torch.device("cpu"), "eager")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"
    assert not model.training
    with torch.inference_mode():
        logits = model(**prompts.random_prompt(model, 1)).logits
    assert logits.isfinite().all()
    assert logits.std() > 0


# The command and its file.


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setitem(shapes.SHAPES, "llava-1.5-0.5b", lambda: tiny_llava().config)
    return lambda *arguments: command("bench", "--output", tmp_path / "new" / "bench.json", *arguments)


def test_strategies_are_measured_beside_their_ideals(
    run: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--strategy", "grid", "fopru:mode=row", "--keep-ratio", 0.5, "--batch", 1, 2]
    assert run(*options, "--rounds", 2) == 0
    printed = capsys.readouterr().out
    for expected in ("FoPru row", "ideal 18", "unpruned", "decode to ideal", "pays from", "range of fewer than five"):
        assert expected in printed
    path = tmp_path / "new" / "bench.json"
    assert path.with_suffix(".png").stat().st_size > 10_000
    content = json.loads(path.read_text())
    assert len(content["cases"]) == 2 * (1 + 1 + 2)
    assert [one["batch"] for one in content["rounds"]] == [1, 1, 2, 2]
    assert {"cpu", "cores", "threads", "memory_bytes", "device", "dtype", "versions", "sources"} <= set(
        content["about"]
    )
    # The same command adds rounds, also with other strategies.
    assert run("--strategy", "random", "--keep-ratio", 0.5, "--rounds", 1) == 0
    record = Record.read(path)
    assert len(record.rounds) == 5
    assert {
        one.facts.strategy: one.ttft_to_ideal.n for one in figures(record) if one.ttft_to_ideal
    } == {  # of any batch
        "Grid": 2,
        "FoPru row": 2,
        "Random": 1,
    }
    weights = content["about"]["weight_bytes"]
    differs = f"weight_bytes={weights}, dtype='float32' and not weight_bytes={weights // 2}, dtype='bfloat16'"
    assert f"{path}: its rounds were measured, with {differs}. Name another" in run("--dtype", "bfloat16")


def test_command_on_a_drawn_image(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Patches are dropped before the tower, and the ideal is an image with only that many."""
    monkeypatch.setitem(shapes.SHAPES, "qwen2.5-vl-3b", FAMILIES["qwen2.5-vl"].config)
    options = ["--shape", "qwen2.5-vl-3b", "--image", "screen", "--side", 256, "--rounds", 0]
    assert run(*options, "--strategy", "pixelprune", "pixelprune+divprune", "--keep-ratio", 1, 0.1) == 0
    path = tmp_path / "new" / "bench.json"
    assert Record.read(path).title.endswith("screen of 256 px")
    found = {one["name"]: one for one in json.loads(path.read_text())["cases"]}
    unpruned, pixels, both = (found[name] for name in ("unpruned", "PixelPrune @ 1", "PixelPrune + DivPrune @ 0.1"))
    assert both["n_kept"] == round(0.1 * 32**2) < pixels["n_kept"] < unpruned["n_visual"] == 32**2
    assert pixels["schedule"]["tower"] == [[pixels["n_kept"], 3]] == both["schedule"]["tower"]
    for one in (pixels, both):
        ideal = found[one["ideal"]]
        assert ideal["flops"] < 0.9 * unpruned["flops"]
        assert one["flops"] == pytest.approx(ideal["flops"], rel=0.15)  # its windows are different
    said = run(*options, "--image", "table")
    assert "image='screen' and not image='table'" in said


def test_command_throughput(run: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--strategy", "grid", "--throughput", "--new-tokens", 2, "--rounds", 1, "--memory", 1]
    assert run(*options) == 0
    printed = capsys.readouterr().out
    assert "largest batch in 1 GB" in printed
    assert "peak memory without the weights" in printed
    assert "a second" in printed


def test_command_on_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(tiny_llava(), tmp_path / "model")
    output = tmp_path / "bench.json"
    assert command("bench", "--model", model, "--strategy", "grid", "--rounds", 0, "--output", output) == 0
    printed = capsys.readouterr().out
    assert "9 " in printed
    assert "not timed" in printed
    assert not output.with_suffix(".png").exists()
    assert json.loads(output.read_text())["about"]["model"] == "model"


def test_what_cannot_be_measured(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("--shape", "llava-1.5-7")
    assert said.startswith("Error: unknown shape 'llava-1.5-7'. Did you mean 'llava-1.5-7b'? Known: internvl3.5-1b, ")
    assert run("--keep-ratio", 0) == 2
    monkeypatch.setattr(build, "free_bytes", lambda device: 6_000_000_000)
    said = run("--shape", "llava-1.5-7b", "--dtype", "bfloat16")
    assert said.startswith("Error: llava-1.5-7b in torch.bfloat16 needs 15.5 GB for its weights")
    assert "cpu has 6.0 GB free" in said


def test_attention_that_is_not_installed(run: Callable[..., Any], tmp_path: Path) -> None:
    if is_flash_attn_2_available():
        pytest.skip("it is installed")
    asked = ["--attention", "flash_attention_2", "--dtype", "bfloat16", "--strategy", "grid"]
    for model in ([], ["--model", saved(tiny_llava(), tmp_path / "m")]):
        assert "--attention flash_attention_2: FlashAttention2 has been toggled on" in run(*asked, *model)


def test_a_side_without_effect(run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported before the model is loaded. For a model with one image size, that size is recorded."""
    monkeypatch.setattr("tokenprune.evals.bench.inputs.build.build", lambda *_: pytest.fail("loaded first"))
    said = run("--side", 448)
    assert said.startswith("Error: --side 448 has no effect: llava-1.5-0.5b resizes every image to the same size.")
    assert said.endswith("Leave it out, or measure a model that takes several sizes, such as --shape qwen2.5-vl-3b.")
    monkeypatch.undo()
    monkeypatch.setitem(shapes.SHAPES, "llava-1.5-0.5b", lambda: tiny_llava().config)
    assert run("--strategy", "grid", "--rounds", 0) == 0
    assert Record.read(tmp_path / "new" / "bench.json").about["side"] == SIDE
    model, output = saved(tiny_llava(), tmp_path / "model"), tmp_path / "b.json"
    said = command("bench", "--model", model, "--side", 448, "--output", output)
    assert f"--side 448 has no effect: {model} resizes every image" in said
    monkeypatch.setattr("helpers.models.video_models.MOST", 10**6)  # pixels
    measured = ["--model", saved_qwen(tmp_path / "qwen"), "--strategy", "grid", "--rounds", 0]
    assert command("bench", *measured, "--side", 112, "--output", output) == 0
    assert Record.read(output).about["side"] == 112


def test_what_cannot_be_written_is_said_before_the_model_loads(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("loaded first"))
    said = run("--output", tmp_path / "x.png")  # where the plot belongs
    assert said == f"Error: {tmp_path / 'x.png'}: the results are JSON; write {tmp_path / 'x.json'}."
    (tmp_path / "file.json").mkdir()
    assert "file.json: is a folder; name a file in it" in run("--output", tmp_path / "file.json")
    (tmp_path / "x.json").write_text("{}")
    assert "x.json: not written by tokenprune bench (KeyError). Name" in run("--output", tmp_path / "x.json")
    said = run("--output", tmp_path / "x.json" / "y.json")
    assert said == f"Error: {tmp_path / 'x.json'}: cannot be a folder, because it is a file. Name another --output."
    assert "downsample prunes nothing" in run("--strategy", "grid", "downsample")


def test_other_sources_are_said_in_words(run: Callable[..., Any], tmp_path: Path) -> None:
    path, options = tmp_path / "new" / "bench.json", ["--strategy", "grid", "--rounds", 0]
    assert run(*options) == 0
    content = json.loads(path.read_text())
    content["about"]["sources"] = "0123456789abcdef"
    path.write_text(json.dumps(content))
    said = run(*options)
    assert said.endswith("its rounds were measured, with other source code of tokenprune. Name another --output.")


def test_one_name_for_other_settings(run: Callable[..., Any], tmp_path: Path) -> None:
    """Two such settings in the file: of equal value, or a settings file that was written again."""
    path, file = tmp_path / "new" / "bench.json", tmp_path / "found.json"
    quick = ["--keep-ratio", 0.5, "--rounds", 0]

    def found(mode: str) -> Path:
        file.write_text(json.dumps({"strategy": "fopru", "settings": {"keep_ratio": 0.5, "mode": mode}}))
        return file

    assert run(*quick, "--strategy", "fopru:layer=2", found("rank")) == 0
    assert run(*quick, "--strategy", "fopru:layer=2", found("rank")) == 0
    said = run(*quick, "--strategy", "fopru:cells=2")
    assert f"{path}: FoPru 2 @ 0.5 was measured, with " in said
    assert "layer=2" in said.partition(" and not ")[0]
    said = run(*quick, "--strategy", found("row"))
    assert "FoPru found @ 0.5 was measured, with mode='rank' and not mode='row'. Name another --output." in said
