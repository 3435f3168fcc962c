"""Which architecture serves a checkpoint."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES, GENERIC
from tokenprune.serving.vllm.architectures.architecture import Architecture, by_name
from tokenprune.serving.vllm.architectures.checkpoints import architecture_of, architecture_of_loaded


@pytest.mark.parametrize(
    "one", [one for one in ARCHITECTURES.values() if one.name != GENERIC], ids=lambda one: one.name
)
def test_names_in_a_checkpoint(one: Architecture) -> None:
    """Ours, vLLM's and transformers'."""
    for name in filter(None, (one.name, one.replaces, one.saved_as)):
        assert architecture_of({"model_type": one.model_type, "architectures": [name]}) == one.name


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "llava"}, "TokenPruneLlava"),
        ({"model_type": "llava", "vision_config": {"model_type": "dinov2"}}, "TokenPruneTransformers"),
        ({"model_type": "llava", "architectures": ["TokenPruneQwen2VL"]}, "TokenPruneLlava"),
        ({"model_type": "mistral3"}, "TokenPruneMistral3"),
        ({"model_type": "deepseek_vl_v2"}, "TokenPruneDeepseekOCR"),
        ({"model_type": "deepseek_vl_v2", "architectures": ["DeepseekOCR2ForCausalLM"]}, "TokenPruneDeepseekOCR2"),
        ({"model_type": "qwen3_5", "vision_config": {"model_type": "qwen3_5_vision"}}, "TokenPruneQwen3_5"),
        ({"model_type": "step3p7", "vision_config": {"width": 1536}}, "TokenPruneStep3p7"),
    ],
)
def test_architecture_of_a_checkpoint(config: dict[str, Any], name: str) -> None:
    assert architecture_of(config) == name


def test_models_that_cannot_be_served() -> None:
    with pytest.raises(UnsupportedError, match='config\\.json has no "model_type"'):
        architecture_of({"architectures": ["LlavaForConditionalGeneration"]})
    for one in ARCHITECTURES.values():
        if one.converted and one.converted != "internvl":  # which is served, too
            said = f"transformers only: .* with the type '{one.model_type}' in .* as {one.published[0]} is one"
            with pytest.raises(UnsupportedError, match=said):
                architecture_of({"model_type": one.converted})
    with pytest.raises(UnsupportedError, match="type 'vlm' cannot be pruned"):
        architecture_of({"model_type": "vlm"})  # a name that says nothing
    with pytest.raises(UnsupportedError, match=r"is as transformers writes it, .* such as AIDC-AI/Ovis2\.5-9B\. Patch"):
        architecture_of({"model_type": "ovis2_5", "architectures": ["Ovis2_5ForConditionalGeneration"]})
    with pytest.raises(UnsupportedError, match="type 'step3_vl' cannot be pruned"):
        architecture_of({"model_type": "step3_vl", "architectures": ["Step3VLForConditionalGeneration"]})


@pytest.mark.parametrize(("model_type", "said"), [("florence2", ""), ("gemma3n", "'gemma3'"), ("qwen9_vl", "'qwen")])
def test_a_type_that_is_not_served(model_type: str, said: str) -> None:
    with pytest.raises(
        UnsupportedError, match=f"cannot be pruned.*{said}.* `vllm serve`.*: tokenprune models$"
    ) as error:
        architecture_of({"model_type": model_type})
    assert ("Patch it in transformers" in str(error.value)) == (
        model_type == "gemma3n"
    )  # the only one that `patch` takes


def test_a_thinker_that_transformers_has_loaded() -> None:
    names = ["Qwen2_5OmniThinkerForConditionalGeneration"]
    thinker = {"model_type": "qwen2_5_omni_thinker", "architectures": names}
    assert architecture_of_loaded(thinker) == "TokenPruneQwen2_5Omni"
    with pytest.raises(UnsupportedError, match=r"a thinker alone: vLLM takes the whole model\. Write .*Qwen2\.5"):
        architecture_of(thinker)  # as a separate checkpoint
    with pytest.raises(UnsupportedError, match="names TarsierForConditionalGeneration"):
        architecture_of_loaded({"model_type": "llava", "architectures": ["TarsierForConditionalGeneration"]})


@pytest.mark.parametrize(
    ("model_type", "named", "served"),
    [
        ("llava", "TarsierForConditionalGeneration", "LlavaForConditionalGeneration"),
        ("llava", "LlavaQwenForCausalLM", "LlavaForConditionalGeneration"),
        ("qwen2_vl", "JinaVLForRanking", "Qwen2VLForConditionalGeneration"),
        ("qwen3_5", "Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
        ("vlm", "AnotherForCausalLM", "HCXVisionV2ForCausalLM"),
        ("deepseek_vl_v2", "DeepseekVLV2ForCausalLM", "DeepseekOCR2ForCausalLM and DeepseekOCRForCausalLM"),
        ("mistral3", "MistralLarge3ForCausalLM", "LightOnOCRForConditionalGeneration and Mistral3ForConditional"),
    ],
)
def test_models_that_only_share_the_type_of_one_that_is_served(model_type: str, named: str, served: str) -> None:
    """vLLM has separate classes for some of them; ours would read their weights as another model's."""
    said = rf'names {named} in "architectures", which cannot be pruned inside vLLM: of type \'{model_type}\', only '
    with pytest.raises(UnsupportedError, match=said + served):
        architecture_of({"model_type": model_type, "architectures": [named]})


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"name": "TokenPruneLlava", "replaces": "Another"}, "TokenPruneLlava"),
        ({"name": "TokenPruneAnother"}, "LlavaForConditionalGeneration"),
        ({"name": "TokenPruneAnother", "replaces": "One", "saved_as": "Llava"}, None),
    ],
)
def test_no_architecture_hides_another(changes: dict[str, Any], again: str | None) -> None:
    llava = ARCHITECTURES["TokenPruneLlava"]
    with pytest.raises(ValueError, match=f"two architectures named {again}") if again else nullcontext():
        by_name((llava, replace(llava, **changes)))
