"""A training state that is small enough to move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenprune.evals.dev.train.v2 import compact


def test_a_state_is_a_quarter_as_large_and_nearly_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = {"layer.weight": torch.randn(64, 128), "layer.bias": torch.randn(64), "small": torch.randn(3, 4)}
    compact.save({"stage": 2, "step": 70, "tower": weights, "trainee": weights}, tmp_path / "new" / "state.safetensors")
    saved = compact.load(tmp_path / "new" / "state.safetensors")
    assert (saved["stage"], saved["step"]) == (2, 70)
    for part in ("tower", "trainee"):
        assert saved[part].keys() == weights.keys()
        assert torch.equal(saved[part]["layer.bias"], weights["layer.bias"])
        off = (saved[part]["layer.weight"] - weights["layer.weight"]).abs()
        assert (off <= weights["layer.weight"].abs().amax(1, keepdim=True) / 254 + 1e-6).all()
    assert (tmp_path / "new" / "state.safetensors").stat().st_size < 0.3 * 2 * 64 * 128 * 4 + 4000


def test_a_state_of_stage_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="stage one is not over"):
        compact.save({"stage": 1, "step": 70, "tower": {}, "trainee": {}}, tmp_path / "state.safetensors")
