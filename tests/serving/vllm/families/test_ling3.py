"""Ling 3.0 VL as vLLM configures it, with layers that have a state. Other tests replace its language model."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.served.converted.ling3 import NAME, save_ling3_vl
from helpers.served.engine import needs_vllm
from helpers.served.family import FOPRU

from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.plugin import register

pytestmark = [needs_vllm, pytest.mark.slow]


def test_it_is_configured_like_the_unpruned_model(tmp_path: Path) -> None:
    from vllm import ModelRegistry
    from vllm.engine.arg_utils import EngineArgs

    register()
    home = f"tokenprune.serving.vllm.models.{ARCHITECTURES[NAME].home}"
    ModelRegistry.register_model(NAME, home)  # other tests may have registered another class
    save_ling3_vl(tmp_path, layer_group_size=3)

    def seen(**overrides: Any) -> list[Any]:
        config = EngineArgs(str(tmp_path), max_model_len=256, hf_overrides=overrides).create_engine_config()
        model = config.model_config
        kind, _ = ModelRegistry.resolve_model_cls(model.architectures, model)
        states = kind.get_mamba_state_shape_from_config(config), kind.get_mamba_state_dtype_from_config(config)
        return [model.is_hybrid, model.uses_mrope, config.cache_config.mamba_cache_mode, *states]

    own = seen()
    assert own[:2] == [True, True]
    assert seen(architectures=[NAME], tokenprune=FOPRU) == own
