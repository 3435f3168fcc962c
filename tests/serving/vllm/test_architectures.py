"""Which architecture serves a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import architecture_of


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "llava"}, "TokenPruneLlava"),
        ({"model_type": "llava", "vision_config": {"model_type": "dinov2"}}, "TokenPruneTransformers"),
        ({"model_type": "qwen3_vl_moe", "vision_config": {"model_type": "qwen3_vl_moe"}}, "TokenPruneQwen3VLMoe"),
        ({"model_type": "mistral3", "architectures": ["Mistral3ForConditionalGeneration"]}, "TokenPruneMistral3"),
        ({"model_type": "mistral3", "architectures": ["LightOnOCRForConditionalGeneration"]}, "TokenPruneLightOnOCR"),
        ({"model_type": "qwen3_5", "vision_config": {"model_type": "qwen3_5_vision"}}, "TokenPruneQwen3_5"),
    ],
)
def test_architecture_of_a_checkpoint(config: dict[str, Any], name: str) -> None:
    assert architecture_of(config) == name


def test_models_that_cannot_be_served() -> None:
    with pytest.raises(UnsupportedError, match=r"'pixtral' is not in transformers' format\. If it is a Mistral 3"):
        architecture_of({"model_type": "pixtral"})
    with pytest.raises(UnsupportedError, match=r"'bert' cannot be pruned inside vLLM\. Supported: exaone4_5, gemma3,"):
        architecture_of({"model_type": "bert"})
