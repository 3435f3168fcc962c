"""Kimi K3 and K3.1 as vLLM configures it, with layers that have a state. Other tests replace its language model."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.served.converted.kimi_k3 import save_kimi_k3, save_kimi_k31
from helpers.served.engine import needs_vllm
from helpers.served.family import FOPRU

from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import reason_of_lack
from tokenprune.serving.vllm.plugin import register

pytestmark = [needs_vllm, pytest.mark.slow]
LAYERS = {"kda_layers": [1, 3], "full_attn_layers": [2], "num_heads": 2, "head_dim": 32, "short_conv_kernel_size": 4}


@pytest.mark.parametrize(("version", "save"), [("3", save_kimi_k3), ("31", save_kimi_k31)])
def test_it_is_configured_like_the_unpruned_model(version: str, save: Callable[..., None], tmp_path: Path) -> None:
    name = f"TokenPruneKimiK{version}"
    if reason := reason_of_lack(ARCHITECTURES[name]):
        pytest.skip(reason)
    from vllm import ModelRegistry
    from vllm.engine.arg_utils import EngineArgs

    register()
    home = "tokenprune.serving.vllm.models.kimi_k3:PrunedKimiK3"
    ModelRegistry.register_model(name, home)  # other tests may have registered another class
    save(tmp_path, linear_attn_config=LAYERS, mla_use_nope=True)

    def seen(**overrides: Any) -> list[Any]:
        config = EngineArgs(str(tmp_path), max_model_len=256, hf_overrides=overrides).create_engine_config()
        model = config.model_config
        kind, _ = ModelRegistry.resolve_model_cls(model.architectures, model)
        states = kind.get_mamba_state_shape_from_config(config), kind.get_mamba_state_dtype_from_config(config)
        return [model.tokenizer_mode, model.is_hybrid, config.cache_config.mamba_cache_mode, *states]

    own = seen()
    assert own[:2] == ["kimi_k3", True]
    assert seen(architectures=[name], tokenprune=FOPRU) == own
