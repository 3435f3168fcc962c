"""`tokenprune models` and `tokenprune serve`: models that not all releases of vLLM have."""

from __future__ import annotations

import json
import os
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from helpers.commands import command

from tokenprune.evals.cli import serve
from tokenprune.serving.vllm.architectures import releases


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.33.0", "vLLM up to 0.33"),
        (
            "0.34.0",
            "KeyeForConditionalGeneration is pruned in vLLM up to 0.33, and this is vLLM 0.34.0. "
            'Type: pip install "vllm<0.34"',
        ),
    ],
)
def test_a_model_that_not_all_releases_of_vllm_have(
    version: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(releases, "version", lambda _: version)
    assert command("models", "Kwai-Keye/Keye-VL-8B-Preview") == 0
    shown = capsys.readouterr().out
    assert "  vLLM        tokenprune serve, with grid, " in shown
    assert f"  releases    {said}\n" in shown
    assert command("models", "dots_ocr") == 0
    assert "  releases    " not in capsys.readouterr().out


def test_a_model_that_this_vllm_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(os, "execv", lambda *_: None)
    vision = {"model_type": "siglip_vision_model", "num_hidden_layers": 4, "spatial_merge_size": 2}
    names = {"architectures": ["KeyeForConditionalGeneration"], "num_hidden_layers": 4, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "Keye", **names}))
    monkeypatch.setattr(releases, "version", lambda _: "0.34.0")
    said = command("serve", "--model", tmp_path)
    assert said == (
        "Error: KeyeForConditionalGeneration is pruned in vLLM up to 0.33, and this is vLLM 0.34.0. "
        'Type: pip install "vllm<0.34"'
    )
    assert command("serve", "--model", tmp_path, "--print") == 0  # a printed command may be for another machine
    assert "TokenPruneKeye" in capsys.readouterr().out
    monkeypatch.setattr(releases, "version", lambda _: "0.33.0")
    assert command("serve", "--model", tmp_path) == 0
