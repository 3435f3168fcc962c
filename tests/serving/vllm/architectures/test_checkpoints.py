"""Which architecture serves a checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.architecture import by_name
from tokenprune.serving.vllm.architectures.checkpoints import architecture_of, architecture_of_loaded

OMNI = "Qwen2_5OmniForConditionalGeneration"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "llava"}, "TokenPruneLlava"),
        ({"model_type": "llava", "vision_config": {"model_type": "dinov2"}}, "TokenPruneTransformers"),
        ({"model_type": "qwen3_vl_moe", "vision_config": {"model_type": "qwen3_vl_moe"}}, "TokenPruneQwen3VLMoe"),
        ({"model_type": "mistral3", "architectures": ["Mistral3ForConditionalGeneration"]}, "TokenPruneMistral3"),
        ({"model_type": "mistral3", "architectures": ["LightOnOCRForConditionalGeneration"]}, "TokenPruneLightOnOCR"),
        ({"model_type": "kimi_k25", "architectures": ["KimiK25ForConditionalGeneration"]}, "TokenPruneKimiK25"),
        ({"model_type": "kimi_k25", "architectures": ["Kimi_K25ForConditionalGeneration"]}, "TokenPruneKimiK25"),
        ({"model_type": "internvl_chat", "architectures": ["InternVLChatModel"]}, "TokenPruneInternVLChat"),
        ({"model_type": "hunyuan_vl", "architectures": ["HunYuanVLForConditionalGeneration"]}, "TokenPruneHunyuanVL"),
        ({"model_type": "deepseek_vl_v2", "architectures": ["DeepseekOCRForCausalLM"]}, "TokenPruneDeepseekOCR"),
        ({"model_type": "deepseek_vl_v2", "architectures": ["DeepseekOCR2ForCausalLM"]}, "TokenPruneDeepseekOCR2"),
        ({"model_type": "deepseek_vl_v2", "architectures": ["TokenPruneDeepseekOCR2"]}, "TokenPruneDeepseekOCR2"),
        ({"model_type": "unlimited-ocr", "architectures": ["UnlimitedOCRForCausalLM"]}, "TokenPruneUnlimitedOCR"),
        ({"model_type": "dots_ocr", "architectures": ["DotsOCRForCausalLM"]}, "TokenPruneDotsOCR"),
        ({"model_type": "interns1", "architectures": ["InternS1ForConditionalGeneration"]}, "TokenPruneInternS1"),
        ({"model_type": "isaac", "architectures": ["IsaacForConditionalGeneration"]}, "TokenPruneIsaac"),
        ({"model_type": "Keye", "architectures": ["KeyeForConditionalGeneration"]}, "TokenPruneKeye"),
        ({"model_type": "KeyeVL1_5", "architectures": ["KeyeVL1_5ForConditionalGeneration"]}, "TokenPruneKeyeVL1_5"),
        ({"model_type": "kimi_k3", "architectures": ["KimiK3ForConditionalGeneration"]}, "TokenPruneKimiK3"),
        ({"model_type": "kimi_k31", "architectures": ["KimiK31ForConditionalGeneration"]}, "TokenPruneKimiK31"),
        ({"model_type": "kimi_vl", "architectures": ["KimiVLForConditionalGeneration"]}, "TokenPruneKimiVL"),
        ({"model_type": "pixtral", "architectures": ["PixtralForConditionalGeneration"]}, "TokenPrunePixtral"),
        ({"model_type": "opencua", "architectures": ["OpenCUAForConditionalGeneration"]}, "TokenPruneOpenCUA"),
        ({"model_type": "ovis2_5", "architectures": ["Ovis2_5"]}, "TokenPruneOvis2_5"),
        ({"model_type": "ovis2_6", "architectures": ["Ovis2_6ForCausalLM"]}, "TokenPruneOvis2_6"),
        ({"model_type": "ovis2_6_moe", "architectures": ["Ovis2_6_MoeForCausalLM"]}, "TokenPruneOvis2_6Moe"),
        (
            {"model_type": "llava_onevision2", "architectures": ["LlavaOnevision2ForConditionalGeneration"]},
            "TokenPruneLlavaOnevision2",
        ),
        (
            {"model_type": "ernie4_5_moe_vl", "architectures": ["Ernie4_5_VLMoeForConditionalGeneration"]},
            "TokenPruneErnie4_5VL",
        ),
        (
            {"model_type": "intern_s2_preview", "architectures": ["InternS2PreviewForConditionalGeneration"]},
            "TokenPruneInternS2",
        ),
        (
            {"model_type": "interns2_mobius", "architectures": ["InternS2MobiusForConditionalGeneration"]},
            "TokenPruneInternS2Mobius",
        ),
        ({"model_type": "vlm", "architectures": ["HCXVisionV2ForCausalLM"]}, "TokenPruneHyperClovaX"),
        (
            {"model_type": "bailing_moe_v3_vl", "architectures": ["BailingMoeV3VLForConditionalGeneration"]},
            "TokenPruneLing3VL",
        ),
        ({"model_type": "minicpmv", "architectures": ["MiniCPMV"]}, "TokenPruneMiniCPMV"),
        ({"model_type": "minicpmo", "architectures": ["MiniCPMO"]}, "TokenPruneMiniCPMO"),
        ({"model_type": "molmo2", "architectures": ["Molmo2ForConditionalGeneration"]}, "TokenPruneMolmo2"),
        ({"model_type": "qwen4_exp", "architectures": ["Qwen4ExpForConditionalGeneration"]}, "TokenPruneQwen4Exp"),
        ({"model_type": "step3p7", "vision_config": {"width": 1536}}, "TokenPruneStep3p7"),
        ({"model_type": "step_robotics", "architectures": ["StepVLForConditionalGeneration"]}, "TokenPruneStepVL"),
        ({"model_type": "llava", "architectures": ["TokenPruneQwen2VL"]}, "TokenPruneLlava"),
        ({"model_type": "cosmos3_omni", "architectures": ["Cosmos3ForConditionalGeneration"]}, "TokenPruneCosmos3"),
        ({"model_type": "cosmos3_omni", "architectures": ["Cosmos3OmniForConditionalGeneration"]}, "TokenPruneCosmos3"),
        ({"model_type": "qwen2_5_omni", "architectures": ["Qwen2_5OmniModel"]}, "TokenPruneQwen2_5Omni"),
        ({"model_type": "qwen2_5_omni", "architectures": [OMNI]}, "TokenPruneQwen2_5Omni"),
        ({"model_type": "glm5_next", "architectures": ["Glm5NextForConditionalGeneration"]}, "TokenPruneGlm5Next"),
        (
            {"model_type": "minimax_m3_vl", "architectures": ["MiniMaxM3SparseForConditionalGeneration"]},
            "TokenPruneMiniMaxM3",
        ),
        ({"model_type": "qwen3_5", "vision_config": {"model_type": "qwen3_5_vision"}}, "TokenPruneQwen3_5"),
        ({"model_type": "NemotronH_Nano_VL_V2", "architectures": ["NemotronH_Nano_VL_V2"]}, "TokenPruneNemotronNanoVL"),
        (
            {"model_type": "nemotron_h_omni", "architectures": ["NemotronH_Omni_Reasoning_V3"]},
            "TokenPruneNemotronOmni",
        ),
    ],
)
def test_architecture_of_a_checkpoint(config: dict[str, Any], name: str) -> None:
    assert architecture_of(config) == name


def test_models_that_cannot_be_served() -> None:
    with pytest.raises(UnsupportedError, match='config\\.json has no "model_type"'):
        architecture_of({"architectures": ["LlavaForConditionalGeneration"]})
    with pytest.raises(UnsupportedError, match=r"vLLM takes ERNIE 4\.5 VL .* type 'ernie4_5_moe_vl' in"):
        architecture_of({"model_type": "ernie4_5_vl_moe"})
    with pytest.raises(UnsupportedError, match=r"HyperCLOVA X as it is published, with the type 'vlm'\. Write its"):
        architecture_of({"model_type": "hyperclovax_vision_v2"})
    with pytest.raises(UnsupportedError, match="type 'vlm' cannot be pruned"):
        architecture_of({"model_type": "vlm"})  # a name that says nothing
    with pytest.raises(UnsupportedError, match=r"vLLM takes DeepSeek-OCR 2 .* type 'deepseek_vl_v2' in"):
        architecture_of({"model_type": "deepseek_ocr2"})
    with pytest.raises(UnsupportedError, match=r"vLLM takes Unlimited-OCR .* type 'unlimited-ocr' in"):
        architecture_of({"model_type": "unlimited_ocr"})
    with pytest.raises(UnsupportedError, match=r"is as transformers writes it, .* such as AIDC-AI/Ovis2\.5-9B\. Patch"):
        architecture_of({"model_type": "ovis2_5", "architectures": ["Ovis2_5ForConditionalGeneration"]})
    with pytest.raises(UnsupportedError, match="type 'step3_vl' cannot be pruned"):
        architecture_of({"model_type": "step3_vl", "architectures": ["Step3VLForConditionalGeneration"]})
    with pytest.raises(UnsupportedError, match=r"'bert' cannot be pruned inside vLLM\. Supported: .*gemma3, gemma4"):
        architecture_of({"model_type": "bert"})


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
        by_name(llava, replace(llava, **changes))
