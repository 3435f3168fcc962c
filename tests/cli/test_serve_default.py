"""`tokenprune serve` without --strategy: the first default that fits the model, and what is said about it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from helpers.families import FAMILIES

from tokenprune.evals.defaults import DEFAULT_STRATEGY, SERVED_STRATEGIES
from tokenprune.serving.vllm.settings import Settings
from tokenprune.strategies.parsing import parse

#: Towers that vLLM builds for LLaVA: of the second, its Transformers backend does not show the attention.
CLIP, PIXTRAL = ({"model_type": name, "num_hidden_layers": 4} for name in ("clip_vision_model", "pixtral"))
#: A config with the names of Qwen2's, whose visual tokens have no rows and columns.
MINICPM = {"model_type": "minicpmv", "architectures": ["MiniCPMV"], "vision_config": {"num_hidden_layers": 4}}
MOSAIC, FOPRU, GRID = SERVED_STRATEGIES


def write(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def strategy_in(printed: str) -> Any:
    words = shlex.split(printed)
    return Settings.read(json.loads(words[words.index("--hf-overrides") + 1])["tokenprune"])


@pytest.mark.parametrize(
    ("config", "taken", "why"),
    [
        ({"model_type": "llava", "vision_config": CLIP}, MOSAIC, None),
        (MINICPM, FOPRU, "Mosaic cannot run inside vLLM with TokenPruneMiniCPMV: it needs the rows and columns of"),
        pytest.param(
            {"model_type": "gemma4_unified"},
            GRID,
            "Mosaic(keep_ratio=0.5) needs attention of one vision-encoder layer",
            marks=pytest.mark.skipif("gemma4-unified" not in FAMILIES, reason="an older transformers"),
        ),
        (
            {"model_type": "llava", "vision_config": PIXTRAL, "vision_feature_select_strategy": "full"},
            GRID,
            "does not show the attention of a pixtral tower",
        ),
    ],
)
def test_the_first_that_fits_the_model(
    config: dict[str, Any], taken: str, why: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--model", write(tmp_path, config), "--keep-ratio", 0.5, "--position-ids", "compact"
    assert command("serve", *words, "--print") == 0
    printed, said = capsys.readouterr()
    assert strategy_in(printed) == Settings(parse(taken, keep_ratio=0.5), "compact")  # a printed command, nothing else
    assert said.startswith(f"Serving with {taken}, not {DEFAULT_STRATEGY}: ") if why else not said
    assert (why or "") in said
    assert command("models", tmp_path) == 0
    assert f"  default     {taken}, without --strategy\n" in capsys.readouterr().out


def test_the_preferred_one_comes_first() -> None:
    assert MOSAIC == DEFAULT_STRATEGY


@pytest.mark.parametrize(("name", "default"), [("openbmb/MiniCPM-V-4_5", FOPRU), ("Qwen3-VL", MOSAIC)])
def test_models_names_the_default(name: str, default: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As far as a model's type decides."""
    assert command("models", name) == 0
    assert f"  default     {default}, without --strategy\n" in capsys.readouterr().out


def test_a_strategy_that_was_named_is_not_replaced(tmp_path: Path) -> None:
    said = command("serve", "--model", write(tmp_path, MINICPM), "--strategy", "mosaic", "--print")
    assert said.startswith("Error: Mosaic cannot run inside vLLM with TokenPruneMiniCPMV: ")
    assert said.endswith(f" Or write --strategy {FOPRU}, the default for this model.")


@pytest.mark.parametrize("words", [[], ["--strategy", "grid"]])
def test_no_strategy_fits(words: list[str], tmp_path: Path) -> None:
    """The reason is that of the strategy that was named or preferred, and no other is offered."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [1.0], "short_factor": [1.0]}
    said = command("serve", "--model", write(tmp_path, {**MINICPM, "rope_parameters": rope}), *words)
    assert said.startswith("Error: Mosaic cannot run" if not words else "Error: Grid cannot run")
    assert "--strategy" not in said
