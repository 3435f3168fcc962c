"""`tokenprune serve --adapter`: an adapter is served as it was trained."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from transformers import LlavaOnevisionConfig

from tokenprune.evals.models.bundled import ADAPTER, MODEL
from tokenprune.serving.vllm.settings import Settings
from tokenprune.strategies.parsing import parse

#: What `adapt` writes, and more.
TRAINED = {"strategy": "fopru", "settings": {"layer": -2, "keep_ratio": 0.1}, "ratios": {"lowest": 0.1, "highest": 0.3}}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """The output folder of `tokenprune adapt`."""
    folder = tmp_path / "adapted"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"r": 12}))
    (folder / "adapt.json").write_text(json.dumps(TRAINED))
    return folder


def settings_in(words: list[str]) -> dict[str, Any]:
    return json.loads(words[words.index("--hf-overrides") + 1])["tokenprune"]


@pytest.mark.parametrize(
    ("words", "settings", "differs"),
    [
        ([], {"strategy": "fopru", "layer": -2, "keep_ratio": 0.1}, False),
        (["--keep-ratio", 0.3], {"strategy": "fopru", "layer": -2, "keep_ratio": 0.3}, False),
        (["--strategy", "fopru:layer=-2", "--keep-ratio", 0.2], {"layer": -2, "keep_ratio": 0.2}, False),
        (["--strategy", "fopru:layer=-2,keep=9"], {"layer": -2, "keep": 9}, True),
        (["--strategy", "fopru:layer=1", "--keep-ratio", 0.1], {"layer": 1}, True),
        (["--strategy", "grid", "--keep-ratio", 0.1], {"strategy": "grid"}, True),
        (["--keep-ratio", 0.31], {"strategy": "fopru", "keep_ratio": 0.31}, True),
    ],
)
def test_an_adapter(
    words: list[Any], settings: Any, differs: bool, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is served as it was trained, or the difference is named."""
    assert command("serve", MODEL, "--adapter", adapter, *words, "--port", "1", "--print") == 0
    out, said = capsys.readouterr()
    found = shlex.split(out)
    assert settings.items() <= settings_in(found).items()
    assert ("The adapter was trained with FoPru(keep_ratio=0.1, layer=-2) and keep ratios" in said) == differs
    images = json.dumps({"image": str(adapter / "adapter")})
    assert found[-7:-2] == ["--enable-lora", "--max-lora-rank", "16", "--default-mm-loras", images]


def test_an_adapter_without_its_record(adapter: Path) -> None:
    (adapter / "adapt.json").write_text(json.dumps({"strategy": "fopru"}))
    assert "adapt.json: is not as `tokenprune adapt` writes it" in command("serve", MODEL, "--adapter", adapter)
    (adapter / "adapt.json").unlink()
    said = command("serve", MODEL, "--adapter", adapter)
    assert "adapter: does not say what it was trained with, since it has no adapt.json" in said
    assert "is not an adapter" in command("serve", MODEL, "--adapter", MODEL)


def test_a_model_without_adapters(adapter: Path, tmp_path: Path) -> None:
    LlavaOnevisionConfig(architectures=["LlavaOnevisionForConditionalGeneration"]).save_pretrained(tmp_path)
    said = command("serve", tmp_path, "--adapter", adapter, "--print")
    assert "not known to apply adapters to TokenPruneLlavaOnevision. Merge the adapter into the weights" in said


def test_the_bundled_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("serve", MODEL, "--adapter", ADAPTER, "--print") == 0
    found = settings_in(shlex.split(capsys.readouterr().out))
    assert Settings.read(found).strategy == parse("fopru:score=cls,layer=-2,cells=auto", keep_ratio=0.1)
