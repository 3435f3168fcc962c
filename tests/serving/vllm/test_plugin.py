"""What the plug-in adds to vLLM leaves vLLM's own as it is."""

# pyright: reportMissingImports=false

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.served.engine import needs_vllm

from tokenprune.errors import SettingError
from tokenprune.serving.vllm import refusals
from tokenprune.serving.vllm.plugin import register

pytestmark = needs_vllm


@pytest.mark.parametrize("name", ["TokenPruneQwen3_5", "Qwen3_5ForConditionalGeneration"])
def test_what_vllm_sets_for_a_class(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    register()
    register()
    monkeypatch.setattr(refusals, "check_engine", lambda *_: None)
    text, cache = SimpleNamespace(mamba_ssm_dtype="float32"), SimpleNamespace(mamba_ssm_cache_dtype="auto")
    config: Any = SimpleNamespace(model_config=SimpleNamespace(hf_text_config=text), cache_config=cache)
    MODELS_CONFIG_MAP[name].verify_and_update_config(config)
    assert cache.mamba_ssm_cache_dtype == "float32"


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("LlavaForConditionalGeneration", 'Add "architectures": ["TokenPruneLlava"] to it'),
        ("Qwen2_5OmniForConditionalGeneration", 'Add "architectures": ["TokenPruneQwen2_5Omni"] to it'),
        ("Phi3VForCausalLM", 'The plug-in cannot prune this model: leave "tokenprune" out'),
    ],
)
def test_settings_without_effect(name: str, way_out: str) -> None:
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    register()
    config: Any = SimpleNamespace(hf_config=SimpleNamespace(), architecture=name)
    verify = MODELS_CONFIG_MAP[name].verify_and_update_model_config
    verify(config)  # vLLM's own model, as it is
    config.hf_config.tokenprune = {"strategy": "fopru", "keep_ratio": 0.25}
    with pytest.raises(SettingError, match=re.escape(f"no effect on {name}. {way_out}")):
        verify(config)
