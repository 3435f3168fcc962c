"""The lines that readers copy from `patch_your_model.py` work on their own, and the demo prints what they change."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from demos.test_demos import FOLDER, load
from helpers.files.evals import sample_image, tiny_processor
from helpers.served.models import save_qwen
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune.evals.models.loading import load_model


def copied() -> str:
    _, after = (FOLDER / "patch_your_model.py").read_text(encoding="utf-8").split("# ==== copy from here ")
    lines, _ = after.split("# ==== to here ")
    return lines.partition("\n")[2]


def test_the_copied_lines_need_nothing_else() -> None:
    assert len([line for line in copied().splitlines() if line.strip()]) <= 20
    names: dict[str, Any] = {}
    exec(copied(), names)
    model: Any = tiny_llava()
    asked = model, tiny_processor(), sample_image(), "Where is it?"
    (_, slow, whole), (_, fast, part) = names["before_and_after"](*asked, tokenprune.Grid(keep_ratio=0.25))
    assert min(slow, fast) > 0
    text = model.config.text_config
    per_token = 2 * 4 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    assert whole - part == (36 - 9) * per_token
    assert names["ask"](*asked)[2] == whole  # the patch is gone


def test_layers_of_linear_attention_have_no_keys(tmp_path: Path) -> None:
    """In this Qwen3.5, one of two layers has keys and values."""
    save_qwen(tmp_path, "qwen3_5")
    names: dict[str, Any] = {}
    exec(copied(), names)
    model, processor = load_model(str(tmp_path), "float32")
    text, asked = model.config.text_config, (model, processor, sample_image(), "w1 w2")
    (_, _, whole), (_, _, part) = names["before_and_after"](*asked, tokenprune.Grid(keep=2))
    n_full = text.layer_types.count("full_attention")
    assert whole > part > 0
    assert (whole - part) % (2 * 4 * n_full * text.num_key_value_heads * text.head_dim) == 0


def test_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    load("patch_your_model").main(["--rounds", "1"])
    printed = capsys.readouterr().out
    unpruned, pruned, ratio = (
        [cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")
    )
    assert (unpruned[:2], pruned[:2]) == (["unpruned", "summer"], ["FoPru -2, 25%", "summer"])
    assert ratio[3] == "0.28x"
    assert 0 < float(ratio[2].removesuffix("x")) < 10


def ended(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Return the exit message of a demo that is called as a script."""
    monkeypatch.setattr("sys.argv", [name, *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return str(end.value)


def test_mistakes_are_a_sentence_before_the_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.evals.models.loading.load_model", lambda *_: pytest.fail("loaded first"))
    said = ended("patch_your_model", monkeypatch, "--strategy", "fopro")
    assert said.startswith("Error: ")
    assert "Did you mean 'fopru'" in said
    said = ended("patch_your_model", monkeypatch, "--strategy", "downsample")
    assert said.startswith("Error: --strategy downsample: prunes nothing; name a strategy")


@pytest.mark.parametrize("name", ["block_diffusion", "robot_policy"])
def test_a_model_that_is_refused_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise tokenprune.UnsupportedError("refused")

    monkeypatch.setattr(tokenprune, "patch", refused)
    assert ended(name, monkeypatch) == "Error: refused"
