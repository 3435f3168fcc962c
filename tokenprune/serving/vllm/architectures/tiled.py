"""Models that resize an image to the size of their vision tower, or cut it into tiles of that size."""

from __future__ import annotations

from functools import partial

from tokenprune.serving.vllm.architectures.architecture import Architecture

#: A model that cannot take features instead of an image, because they do not say where in the image they belong.
needs_pixels = partial(Architecture, needs_pixels=True)
#: A Nemotron model; vLLM runs all of them with one class.
nemotron = partial(
    Architecture, home="nemotron:PrunedNemotron", reads_position_ids=False, needs_pixels=True, leaves_videos=True
)
TILED = (
    Architecture("TokenPruneLlava", "llava:PrunedLlava", "LlavaForConditionalGeneration", "llava"),
    needs_pixels(
        "TokenPruneLlavaNext", "llava_next:PrunedLlavaNext", "LlavaNextForConditionalGeneration", "llava_next"
    ),
    Architecture(
        "TokenPruneLlavaNextVideo",
        "llava_next_video:PrunedLlavaNextVideo",
        "LlavaNextVideoForConditionalGeneration",
        "llava_next_video",
        takes_images=False,
        needs_pixels=True,
    ),
    needs_pixels(
        "TokenPruneLlavaOnevision",
        "llava_next:PrunedLlavaOnevision",
        "LlavaOnevisionForConditionalGeneration",
        "llava_onevision",
    ),
    Architecture("TokenPruneInternVL", "internvl:PrunedInternVL", "InternVLForConditionalGeneration", "internvl"),
    Architecture("TokenPruneInternS1", "internvl:PrunedInternVL", "InternS1ForConditionalGeneration", "interns1"),
    Architecture("TokenPruneInternVLChat", "internvl:PrunedInternVLChat", "InternVLChatModel", "internvl_chat"),
    Architecture(
        "TokenPruneQianfanOCR", "internvl:PrunedQianfanOCR", "QianfanOCRForConditionalGeneration", "qianfan_ocr"
    ),
    needs_pixels(
        "TokenPruneGranite4Vision",
        "granite4_vision:PrunedGranite4Vision",
        "Granite4VisionForConditionalGeneration",
        "granite4_vision",
    ),
    needs_pixels(
        "TokenPruneDeepseekOCR2",
        "deepseek_ocr2:PrunedDeepseekOCR2",
        "DeepseekOCR2ForCausalLM",
        "deepseek_vl_v2",
        must_be_named=True,
        gridless=True,
    ),
    needs_pixels("TokenPruneDeepseekOCR", "deepseek_ocr:PrunedDeepseekOCR", "DeepseekOCRForCausalLM", "deepseek_vl_v2"),
    needs_pixels(
        "TokenPruneUnlimitedOCR", "deepseek_ocr:PrunedUnlimitedOCR", "UnlimitedOCRForCausalLM", "unlimited-ocr"
    ),
    Architecture(
        "TokenPruneMolmo2",
        "molmo2:PrunedMolmo2",
        "Molmo2ForConditionalGeneration",
        "molmo2",
        needs_pixels=True,
        has_markers=True,
    ),
    Architecture(
        "TokenPruneIdefics3",
        "idefics3:PrunedIdefics3",
        "Idefics3ForConditionalGeneration",
        "idefics3",
        has_markers=True,
    ),
    Architecture(
        "TokenPruneSmolVLM", "idefics3:PrunedSmolVLM", "SmolVLMForConditionalGeneration", "smolvlm", has_markers=True
    ),
    Architecture(
        "TokenPruneLlama4", "llama4:PrunedLlama4", "Llama4ForConditionalGeneration", "llama4", has_markers=True
    ),
    Architecture(
        "TokenPruneStep3p7",
        "step3p7:PrunedStep3p7",
        "Step3p7ForConditionalGeneration",
        "step3p7",
        has_markers=True,
        needs_pixels=True,
    ),
    Architecture(
        "TokenPruneStepVL",
        "step3p7:PrunedStepVL",
        "StepVLForConditionalGeneration",
        "step_robotics",
        has_markers=True,
        needs_pixels=True,
    ),
    Architecture("TokenPruneMiniCPMV", "minicpm_resampled:PrunedMiniCPMV", "MiniCPMV", "minicpmv", gridless=True),
    Architecture("TokenPruneMiniCPMO", "minicpm_resampled:PrunedMiniCPMO", "MiniCPMO", "minicpmo", gridless=True),
    needs_pixels(
        "TokenPruneMiniCPMV4_6", "minicpm:PrunedMiniCPMV4_6", "MiniCPMV4_6ForConditionalGeneration", "minicpmv4_6"
    ),
    Architecture(
        "TokenPruneMiniCPMV4_7",
        "minicpm:PrunedMiniCPMV4_7",
        "MiniCPMV4_7ForConditionalGeneration",
        "minicpmv4_7",
        mrope=True,
        needs_pixels=True,
    ),
    # vLLM 0.33 has it too, but none of the transformers releases that it takes reads its config.
    needs_pixels(
        "TokenPruneMiniCPMOcr",
        "minicpm_ocr:PrunedMiniCPMOcr",
        "MiniCPMOcrForConditionalGeneration",
        "minicpm_ocr",
        first_release="0.34",
    ),
    Architecture("TokenPruneGemma3", "gemma3:PrunedGemma3", "Gemma3ForConditionalGeneration", "gemma3"),
    Architecture(
        "TokenPruneCohere2Vision",
        "cohere2_vision:PrunedCohere2Vision",
        "Cohere2VisionForConditionalGeneration",
        "cohere2_vision",
        needs_pixels=True,
        has_markers=True,
    ),
    nemotron("TokenPruneNemotronNanoVL", replaces="NemotronH_Nano_VL_V2", model_type="NemotronH_Nano_VL_V2"),
    nemotron(
        "TokenPruneNemotronNanoOmni",
        replaces="NemotronH_Nano_Omni_Reasoning_V3",
        model_type="NemotronH_Nano_Omni_Reasoning_V3",
    ),
    nemotron(
        "TokenPruneNemotronSuperOmni",
        replaces="NemotronH_Super_Omni_Reasoning_V3",
        model_type="NemotronH_Super_Omni_Reasoning_V3",
    ),
    nemotron("TokenPruneNemotronOmni", replaces="NemotronH_Omni_Reasoning_V3", model_type="nemotron_h_omni"),
)
