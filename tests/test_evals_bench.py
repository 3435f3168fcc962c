"""The bench counts and compares the right things; how long they take is not tested."""

import json
from pathlib import Path

import pytest
import torch
from families.base import CACHE
from families.llava_next import LlavaOnevision
from search_files import deep_llava
from tiny import prompt, tiny_llava

import tokenprune
from tokenprune.evals import bench, bench_model
from tokenprune.evals.configurations import Pruned
from tokenprune.strategies.vflowopt import VFlowOpt


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
    monkeypatch.setitem(bench_model.SHAPES, "llava-1.5-0.5b", tiny_llava)


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
        for median, low, high in (timing["to_ideal"], timing["to_unpruned"]):
            assert 0 < low <= median <= high
        assert 0 < timing["flops_to_unpruned"] < 1


def test_operations() -> None:
    """Nothing dropped costs what the unpruned model costs; a stage in the language model saves more."""
    compared = [
        Pruned(label=label, keep_ratio=0.5, strategy=strategy)
        for label, strategy in {
            "everything": tokenprune.Grid(keep_ratio=1.0),
            "half": tokenprune.Grid(keep_ratio=0.5),
            "before": VFlowOpt(keep_ratio=0.5, progressive=False, recycle=False),
            "stages": VFlowOpt(keep_ratio=0.3, first=0.5, recycle=False),
        }.items()
    ]
    everything, half, before, stages = bench.bench(deep_llava(), compared, rounds=1)
    assert everything.flops_to_unpruned == 1
    assert stages.flops < before.flops < everything.flops
    # Of the prompt's 36 + 40 tokens, 18 are dropped, and with them their share of all matrix products but attention's.
    text = deep_llava().config.text_config
    linear = sum(p.numel() for p in deep_llava().model.language_model.layers.parameters() if p.ndim == 2)
    saved = 2 * linear * 18 + 4 * text.num_hidden_layers * text.num_attention_heads * text.head_dim * (76**2 - 58**2)
    assert everything.flops - half.flops == saved
    assert [timing.to_ideal is None for timing in (everything, before, stages)] == [False, False, True]


def test_llava_of_half_a_billion() -> None:
    with torch.device("meta"):
        model = bench_model.llava()
    inputs = bench_model.prompt(tiny_llava(), 10)
    assert inputs["input_ids"].shape == (1, 46)
    language_model = sum(p.numel() for p in model.model.language_model.layers.parameters())
    assert 0.35e9 < language_model < 0.37e9  # Qwen2-0.5B without its vocabulary
    tower = sum(p.numel() for p in model.get_encoder(modality="image").parameters())
    assert 0.30e9 < tower < 0.31e9


def test_llava_onevision_of_half_a_billion() -> None:
    with torch.device("meta"):
        model = bench_model.llava_onevision()
    layers = sum(p.numel() for p in model.model.language_model.layers.parameters())
    assert 0.35e9 < layers < 0.37e9
    encoder = sum(p.numel() for p in model.get_encoder(modality="image").encoder.layers.parameters())
    assert encoder == pytest.approx(0.41e9 * 26 / 27, rel=0.01)  # SigLIP-so400m has 27 layers


def test_a_picture_of_four_tiles() -> None:
    """The shape that tiles are cut in, small."""
    family = LlavaOnevision("llava-onevision")
    model = family.build("sdpa")
    inputs = bench_model.prompt(model, 10)
    assert inputs["pixel_values"].shape[1] == 5
    n_visual = len(family.block((2 * family.tile, 2 * family.tile)))
    assert inputs["input_ids"].shape == (1, n_visual + 10)
    (timing,) = bench.bench(model, [Pruned(label="Grid", keep_ratio=0.5, strategy=tokenprune.Grid(0.5))], rounds=1)
    assert timing.n_visual == n_visual
    assert timing.flops_to_unpruned < 1


def test_pruned_configurations_only() -> None:
    assert "downsample" not in bench.PRUNING
    assert all(isinstance(c, Pruned) for c in bench.configurations(bench.PRUNING, [0.5])[1:])
