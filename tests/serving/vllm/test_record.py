"""The file of kept indices, without an engine."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
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


def test_engines_that_share_a_file(tmp_path: Path) -> None:
    """Those of data parallelism. Their lines are longer than Python's buffer, and must not mix."""
    from tokenprune.serving.vllm.metrics import KeptFile

    path, kept = tmp_path / "kept.jsonl", torch.arange(20_000)

    def write(engine: int) -> None:
        file = KeptFile(str(path))
        for key in range(50):
            file.name(key, f"image {key} of engine {engine}")
            file.write(key, len(kept), kept)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, range(2)))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["image"] for line in lines}) == len(lines) == 100
    assert all(line["kept"] == kept.tolist() for line in lines)
