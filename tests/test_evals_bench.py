"""The bench counts and compares the right things; how long they take is not tested."""

import json
from pathlib import Path

import pytest
import torch
from families.base import CACHE
from tiny import prompt, tiny_llava

import tokenprune
from tokenprune.evals import bench, bench_model
from tokenprune.evals.configurations import Pruned


def test_the_ideal_is_the_model_on_a_shorter_prompt() -> None:
    """Keeping the first tokens with compact position IDs is exactly a prompt that was that short."""

    class First(tokenprune.ScoreStrategy):
        def score(self, tokens: tokenprune.VisualTokens) -> torch.Tensor:
            return torch.arange(tokens.n_visual, 0, -1).float()

    model, inputs = tiny_llava(), prompt([1])
    with tokenprune.patch(model, First(keep=7), position_ids="compact"):
        patched = model(**inputs, logits_to_keep=1).logits
    ideal = bench.ideal(model, inputs, 7)
    assert ideal[CACHE].get_seq_length() == inputs["input_ids"].shape[1] - 36 + 7
    torch.testing.assert_close(ideal.logits, patched)


@pytest.fixture
def small_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.evals.bench.real_shape", tiny_llava)


@pytest.mark.usefixtures("small_shape")
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "bench.json"
    bench.main(["--keep-ratios", "0.5", "0.25", "--rounds", "3", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "FoPru row" in printed
    assert "9 of 36" in printed
    result = json.loads(output.read_text())
    assert [(timing["strategy"], timing["n_kept"]) for timing in result["timings"]] == [
        (strategy, n_kept) for n_kept in (18, 9) for strategy in ("Random", "Grid", "FoPru rank -2", "FoPru row -2")
    ]
    for timing in result["timings"]:
        low, high = timing["spread"]
        assert 0 < low <= timing["to_ideal"] <= high


def test_the_real_shape_is_llava_of_half_a_billion() -> None:
    with torch.device("meta"):
        model = bench_model.real_shape()
    inputs = bench_model.prompt(tiny_llava(), 10)
    assert inputs["input_ids"].shape == (1, 46)
    language_model = sum(p.numel() for p in model.model.language_model.layers.parameters())
    assert 0.35e9 < language_model < 0.37e9  # Qwen2-0.5B without its vocabulary
    tower = sum(p.numel() for p in model.get_encoder(modality="image").parameters())
    assert 0.30e9 < tower < 0.31e9


def test_pruned_configurations_only() -> None:
    assert "downsample" not in bench.PRUNING
    assert all(isinstance(c, Pruned) for c in bench.configurations(bench.PRUNING, [0.5])[1:])
