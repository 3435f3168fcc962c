"""The file of kept indices, without an engine."""

import json
from pathlib import Path

import pytest
import torch
from helpers.served.engine import needs_vllm

pytestmark = needs_vllm


def test_a_disk_that_is_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a worker would end the engine."""
    from tokenprune.serving.vllm.metrics import KeptFile, logger

    warnings: list[str] = []
    monkeypatch.setattr(logger, "warning", lambda text, *values: warnings.append(text % values))
    path = tmp_path / "kept.jsonl"
    path.symlink_to("/dev/full")
    file = KeptFile(str(path))
    for key in range(3):
        file.name(key, f"image {key}")
        if key == 2:
            path.unlink()
        file.write(key, 9, torch.tensor([1, 4]))
    assert json.loads(path.read_text()) == {"image": "image 2", "n_visual": 9, "kept": [1, 4]}
    (warning,) = warnings
    assert f"--record {path} cannot be written: [Errno 28]" in warning
