"""Decoder layers and rotary embeddings that would miss pruned tokens are refused, based on configs."""

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Glm5NextTextConfig, Llama4TextConfig, MiniMaxM3VLTextConfig, Qwen3_5Config, Qwen4ExpTextConfig

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.settings import Settings
from tokenprune.serving.vllm.startup.refusals import check_decoder

SETTINGS = Settings.read({"strategy": "fopru", "keep_ratio": 0.25})


def test_layers_of_other_kinds() -> None:
    """States of linear attention and convolutions see only what is left, and chunks count only that."""
    text = Qwen3_5Config().get_text_config()
    text.layer_types[:2] = ["linear_attention", "conv"]
    check_decoder(text, SETTINGS)
    check_decoder(Llama4TextConfig(), SETTINGS)
    text.layer_types[0] = "mamba"
    with pytest.raises(UnsupportedError, match="'mamba' layers"):
        check_decoder(text, SETTINGS)


def test_rotary_embeddings_of_a_checkpoints_own_code() -> None:
    text = SimpleNamespace(layer_types=["full_attention"], rope_scaling={"rope_type": "longrope", "factor": 2.0})
    with pytest.raises(UnsupportedError, match="rotary embedding is of type 'longrope'"):
        check_decoder(text, SETTINGS)
    text.rope_scaling["rope_type"] = "llama3"
    check_decoder(text, SETTINGS)


@pytest.mark.parametrize("text", [Qwen4ExpTextConfig(), Glm5NextTextConfig()], ids=["qwen4_exp", "glm5_next"])
def test_layers_that_read_some_keys(text: Any) -> None:
    """They are allowed only in models that were tested with such layers."""
    assert "indexed_attention" in text.layer_types
    check_decoder(text, SETTINGS)
    with pytest.raises(UnsupportedError, match="'indexed_attention' layers"):
        check_decoder(SimpleNamespace(model_type="other", layer_types=["indexed_attention"]), SETTINGS)


def test_layers_of_nemotron() -> None:
    """Both under transformers' names, and under those of checkpoints' own code."""
    kinds = ["linear_attention", "moe", "full_attention", "mlp", "mamba", "attention"]
    check_decoder(SimpleNamespace(model_type="nemotron_h", layer_types=kinds), SETTINGS)
    with pytest.raises(UnsupportedError, match="'moe' layers"):
        check_decoder(SimpleNamespace(model_type="other", layer_types=kinds), SETTINGS)


def test_layers_that_read_some_blocks() -> None:
    """As in MiniMax M3."""
    kinds = ["full_attention", "minimax_m3_sparse"]
    check_decoder(MiniMaxM3VLTextConfig(num_hidden_layers=2, layer_types=kinds), SETTINGS)


def test_the_published_name_of_such_layers() -> None:
    check_decoder(SimpleNamespace(model_type="qwen4_exp_text", layer_types=["qwen_sparse_attention"]), SETTINGS)
