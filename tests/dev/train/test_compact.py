"""A training state that is small enough to move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenprune.evals.dev.train import compact, state


def test_a_state_is_a_quarter_as_large_and_nearly_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = {"layer.weight": torch.randn(64, 128), "layer.bias": torch.randn(64), "small": torch.randn(3, 4)}
    (tmp_path / "log.jsonl").write_text("a line\n")
    state.save(tmp_path, 2, 70, {"tower": weights, "trainee": weights, "optimisers": []})
    file, there = tmp_path / "new" / "state.safetensors", tmp_path / "there"
    there.mkdir()
    assert compact.save(tmp_path, file) == 70
    saved = compact.load(file, there)
    assert (saved["stage"], saved["step"]) == (2, 70)
    assert "optimisers" not in saved
    assert (there / "log.jsonl").read_text() == "a line\n"
    for part in ("tower", "trainee"):
        assert saved[part].keys() == weights.keys()
        assert torch.equal(saved[part]["layer.bias"], weights["layer.bias"])
        off = (saved[part]["layer.weight"] - weights["layer.weight"]).abs()
        assert (off <= weights["layer.weight"].abs().amax(1, keepdim=True) / 254 + 1e-6).all()
    assert file.stat().st_size < 0.3 * 2 * 64 * 128 * 4 + 4000


@pytest.mark.parametrize("stages", [(), (1,)])
def test_a_run_that_is_not_in_stage_two_is_refused(tmp_path: Path, stages: tuple[int, ...]) -> None:
    for stage in stages:
        state.save(tmp_path, stage, 70, {"tower": {}, "trainee": {}})
    with pytest.raises(SystemExit, match="holds no checkpoint of stage two"):
        compact.save(tmp_path, tmp_path / "state.safetensors")
