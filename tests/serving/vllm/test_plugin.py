"""What the plug-in adds to vLLM leaves vLLM's own as it is."""

# pyright: reportMissingImports=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.served.engine import needs_vllm

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
