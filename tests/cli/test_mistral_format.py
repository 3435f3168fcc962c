"""Checkpoints in Mistral's own format, alone or beside transformers' format, in the commands."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from helpers.files.evals import saved
from helpers.tiny import tiny_llava
from huggingface_hub.errors import OfflineModeIsEnabled

from tokenprune.errors import DataError
from tokenprune.evals.models import mistral_format
from tokenprune.evals.models.mistral_format import in_mistral_format, served_config
from tokenprune.evals.run.engines.offline import HF_FORMAT, Offline
from tokenprune.serving.vllm.architectures.params import config_of_params

TOWER = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 14}
PIXTRAL = {"n_layers": 6, "dim": 64, "vision_encoder": TOWER}


def write(folder: Path, **files: Any) -> Path:
    """Write files into a folder; names have "_" for the dot."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(json.dumps(content))
    return folder


@pytest.fixture
def pixtral(tmp_path: Path) -> Path:
    return write(tmp_path / "pixtral", params_json=PIXTRAL, consolidated_safetensors=None)


@pytest.fixture
def both(pixtral: Path) -> Path:
    return write(pixtral, config_json={"model_type": "mistral3", "architectures": ["Mistral3ForConditionalGeneration"]})


def served(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the architecture that a checkpoint is served with."""
    assert command("serve", "--model", *words, "--print") == 0
    printed = shlex.split(capsys.readouterr().out)
    (name,) = json.loads(printed[printed.index("--hf-overrides") + 1])["architectures"]
    return name


def test_a_checkpoint_in_this_format_alone(pixtral: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert served(capsys, pixtral) == "TokenPrunePixtral"
    assert served(capsys, pixtral, "--strategy", "fopru:layer=3") == "TokenPrunePixtral"
    said = command("serve", "--model", pixtral, "--strategy", "fopru:layer=4")
    assert "layer=4 is not in the vision tower: write 0 to 3" in said
    assert "needs to prune before the vision tower" in command("serve", "--model", pixtral, "--strategy", "pixelprune")
    assert command("models", pixtral) == 0
    shown = capsys.readouterr().out
    assert "Only vLLM reads pixtral, not transformers: no command except `tokenprune serve` takes it." in shown
    assert "  vLLM        tokenprune serve, with grid, " in shown


def test_the_format_that_vllm_would_read(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """vLLM prefers Mistral's, unless an option says otherwise."""
    assert served(capsys, both) == "TokenPrunePixtral"
    for words in (["--config-format", "hf"], ["--config_format=hf"], ["--config-format=mistral", "--config-format=hf"]):
        assert served(capsys, both, *words, "--port", "1") == "TokenPruneMistral3"
    file = tmp_path / "vllm.yaml"
    file.write_text("port: 8000\nconfig_format: hf\n")
    assert served(capsys, both, "--config", file) == "TokenPruneMistral3"
    assert served(capsys, both, "--config", file, "--config-format", "mistral") == "TokenPrunePixtral"
    (both / "consolidated.safetensors").unlink()
    assert served(capsys, both) == "TokenPruneMistral3"
    assert served(capsys, both, "--config-format", "mistral") == "TokenPrunePixtral"
    (both / "params.json").unlink()
    said = command("serve", "--model", both, "--config-format", "mistral")
    assert f"{both}: found no params.json, which --config-format mistral reads. Leave the option out" in said


def test_evals_read_transformers_format(tmp_path: Path) -> None:
    """Their prompts are for its processor."""
    model = saved(tiny_llava(), tmp_path)
    assert Offline(model, "auto", {"seed": 1}).options == {"seed": 1}
    write(tmp_path, params_json=PIXTRAL, consolidated_safetensors=None)
    assert in_mistral_format(model)
    given = {"seed": 1, "load_format": "auto"}
    assert Offline(model, "auto", given).options == {**HF_FORMAT, **given}


@pytest.mark.parametrize(
    ("files", "is_one"),
    [(["params.json", "consolidated-00001-of-00002.safetensors"], True), (["params.json", "model.safetensors"], False)],
)
def test_a_name_on_hugging_face(
    files: list[str], is_one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which only params.json is downloaded, or without a network, the whole checkpoint."""
    write(tmp_path / "snapshot", params_json=PIXTRAL)
    asked: list[Any] = []

    def listed(name: str, revision: str | None) -> list[str]:
        asked.append((name, revision))
        return files

    monkeypatch.setattr(mistral_format, "cached_file", lambda *_, **options: str(tmp_path / "snapshot/params.json"))
    monkeypatch.setattr(mistral_format, "list_repo_files", listed)
    assert in_mistral_format("mistralai/Pixtral-12B-2409", "main") == is_one
    assert asked == [("mistralai/Pixtral-12B-2409", "main")]

    def offline(name: str, revision: str | None) -> list[str]:
        raise OfflineModeIsEnabled

    monkeypatch.setattr(mistral_format, "list_repo_files", offline)
    assert not in_mistral_format("mistralai/Pixtral-12B-2409")
    write(tmp_path / "snapshot", consolidated_safetensors=None)
    assert in_mistral_format("mistralai/Pixtral-12B-2409")


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no-such: cannot read|no-such is not a folder"):
        served_config(str(tmp_path / "no-such"))


def test_a_checkpoint_without_vision_tower(tmp_path: Path) -> None:
    blind = write(tmp_path / "blind", params_json={"n_layers": 6}, consolidated_safetensors=None)
    said = command("serve", "--model", blind)
    assert "a model of type 'transformer' cannot be pruned inside vLLM" in said
    heard = {"n_layers": 6, "multimodal": {"whisper_model_args": {"encoder_args": {}}}}
    assert config_of_params(heard) == {"model_type": "voxtral"}


def test_windows_of_some_layers() -> None:
    text = config_of_params({**PIXTRAL, "sliding_window": [None, 4096]})["text_config"]
    assert text["layer_types"] == ["full_attention", "sliding_attention"] * 3
    assert text["sliding_window"] == 4096
    assert config_of_params({**PIXTRAL, "sliding_window": [None]})["text_config"]["sliding_window"] is None
