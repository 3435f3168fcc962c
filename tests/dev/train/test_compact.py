"""A training state that is small enough to move."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train import compact, run, state
from tokenprune.evals.dev.train.start.dinov2 import NATIVE_SIDE
from tokenprune.evals.dev.train.start.llava import build_model


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


def test_a_state_is_resumed_without_the_model_that_was_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state of stage two contains the shape of the model."""
    tower = Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=56)
    )
    monkeypatch.setattr(run, "tower_and_positions", lambda sources: (tower, torch.zeros(1, 1 + NATIVE_SIDE**2, 24)))
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "num_key_value_heads": 1}
    args = Namespace(device="cpu", seed=0, sources=tmp_path, version_1=tmp_path / "none", output=tmp_path, minutes=None)
    with monkeypatch.context() as patched:
        patched.setattr(run, "grow", lambda _, processor, seed: build_model(tower, processor, seed, **shape))
        new = run.Run(args)
    again = run.Run(args, {"stage": 2, **new.weights()})
    again.load_weights(new.weights())
    pairs = zip(new.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    new.log.close()
    again.log.close()
    with pytest.raises(SystemExit, match="no model to grow"):
        run.Run(args, {"stage": 1})
