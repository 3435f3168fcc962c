"""The models that are pruned inside vLLM."""

from __future__ import annotations

from functools import partial

from tokenprune.serving.vllm.architecture import Architecture, by_name

#: A model with images of any size, whose tower gets all patches in one sequence, and with M-RoPE.
native_resolution = partial(Architecture, mrope=True, drops_patches=True, joins_ranks=True)
#: The same for Keye-VL, whose features vLLM does not take.
keye = partial(Architecture, mrope=True, needs_pixels=True, drops_patches=True)
#: Kimi K3 or Kimi-VL, whose features vLLM does not take, and whose position IDs count tokens.
kimi = partial(Architecture, needs_pixels=True, drops_patches=True, joins_ranks=True)
#: A model that cannot take features instead of an image, because they do not say where in the image they belong.
needs_pixels = partial(Architecture, needs_pixels=True)
#: A Nemotron model; vLLM runs all of them with one class.
nemotron = partial(
    Architecture, home="nemotron:PrunedNemotron", reads_position_ids=False, needs_pixels=True, leaves_videos=True
)
#: Serves all other models, on vLLM's Transformers backend.
GENERIC = "TokenPruneTransformers"
ARCHITECTURES = by_name(
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
    Architecture(
        "TokenPruneLlavaOnevision2",
        "llava_onevision2:PrunedLlavaOnevision2",
        "LlavaOnevision2ForConditionalGeneration",
        "llava_onevision2",
        drops_patches=True,
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
    native_resolution("TokenPruneQwen2VL", "qwen_vl:PrunedQwen2VL", "Qwen2VLForConditionalGeneration", "qwen2_vl"),
    native_resolution(
        "TokenPruneQwen2_5_VL", "qwen_vl:PrunedQwen2_5_VL", "Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"
    ),
    native_resolution("TokenPruneQwen3VL", "qwen_vl:PrunedQwen3VL", "Qwen3VLForConditionalGeneration", "qwen3_vl"),
    native_resolution(
        "TokenPruneQwen3VLMoe", "qwen_vl:PrunedQwen3VLMoe", "Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe"
    ),
    native_resolution("TokenPruneQwen3_5", "qwen3_5:PrunedQwen3_5", "Qwen3_5ForConditionalGeneration", "qwen3_5"),
    native_resolution(
        "TokenPruneQwen3_5Moe", "qwen3_5:PrunedQwen3_5Moe", "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe"
    ),
    native_resolution(
        "TokenPruneInternS2",
        "qwen3_5:PrunedInternS2",
        "InternS2PreviewForConditionalGeneration",
        "intern_s2_preview",
    ),
    native_resolution(
        "TokenPruneQwen4Exp", "qwen4_exp:PrunedQwen4Exp", "Qwen4ExpForConditionalGeneration", "qwen4_exp"
    ),
    Architecture(
        "TokenPruneQwen2_5Omni",
        "qwen_omni:PrunedQwen2_5Omni",
        "Qwen2_5OmniModel",
        "qwen2_5_omni",
        saved_as="Qwen2_5OmniForConditionalGeneration",
        mrope=True,
        drops_patches=True,
    ),
    Architecture(
        "TokenPruneQwen3Omni",
        "qwen_omni:PrunedQwen3Omni",
        "Qwen3OmniMoeForConditionalGeneration",
        "qwen3_omni_moe",
        mrope=True,
        drops_patches=True,
    ),
    native_resolution(
        "TokenPruneCosmos3",
        "cosmos:PrunedCosmos3",
        "Cosmos3ForConditionalGeneration",
        "cosmos3_omni",
        saved_as="Cosmos3OmniForConditionalGeneration",
    ),
    Architecture(
        "TokenPruneCosmos3Edge",
        "cosmos:PrunedCosmos3Edge",
        "Cosmos3EdgeForConditionalGeneration",
        "cosmos3_edge",
        mrope=True,
    ),
    native_resolution("TokenPruneGlm4v", "glm4v:PrunedGlm4v", "Glm4vForConditionalGeneration", "glm4v"),
    native_resolution("TokenPruneGlm4vMoe", "glm4v:PrunedGlm4vMoe", "Glm4vMoeForConditionalGeneration", "glm4v_moe"),
    native_resolution("TokenPruneGlmOcr", "glm4v:PrunedGlmOcr", "GlmOcrForConditionalGeneration", "glm_ocr"),
    Architecture(
        "TokenPruneGlm5Next",
        "glm5_next:PrunedGlm5Next",
        "Glm5NextForConditionalGeneration",
        "glm5_next",
        reads_position_ids=False,
        drops_patches=True,
        joins_ranks=True,
    ),
    Architecture(
        "TokenPruneMiniMaxM3",
        "minimax_m3:PrunedMiniMaxM3",
        "MiniMaxM3SparseForConditionalGeneration",
        "minimax_m3_vl",
        needs_pixels=True,
        drops_patches=True,
        joins_ranks=True,
    ),
    Architecture(
        "TokenPrunePaddleOCRVL",
        "paddleocr_vl:PrunedPaddleOCRVL",
        "PaddleOCRVLForConditionalGeneration",
        "paddleocr_vl",
        mrope=True,
        drops_patches=True,
    ),
    Architecture(
        "TokenPruneHunyuanVL",
        "hunyuan_vl:PrunedHunyuanVL",
        "HunYuanVLForConditionalGeneration",
        "hunyuan_vl",
        mrope=True,
        needs_pixels=True,
    ),
    Architecture(
        "TokenPruneErnie4_5VL",
        "ernie4_5_vl:PrunedErnie4_5VL",
        "Ernie4_5_VLMoeForConditionalGeneration",
        "ernie4_5_moe_vl",
        mrope=True,
    ),
    Architecture(
        "TokenPruneExaone4_5",
        "exaone4_5:PrunedExaone4_5",
        "Exaone4_5_ForConditionalGeneration",
        "exaone4_5",
        drops_patches=True,
        joins_ranks=True,
    ),
    Architecture("TokenPruneDotsOCR", "dots_ocr:PrunedDotsOCR", "DotsOCRForCausalLM", "dots_ocr", drops_patches=True),
    Architecture(
        "TokenPruneOpenCUA",
        "opencua:PrunedOpenCUA",
        "OpenCUAForConditionalGeneration",
        "opencua",
        drops_patches=True,
    ),
    Architecture(
        "TokenPruneLightOnOCR",
        "mistral3:PrunedLightOnOcr",
        "LightOnOCRForConditionalGeneration",
        "mistral3",
        must_be_named=True,
        needs_pixels=True,
    ),
    Architecture(
        "TokenPruneMistral3",
        "mistral3:PrunedMistral3",
        "Mistral3ForConditionalGeneration",
        "mistral3",
        needs_pixels=True,
        has_markers=True,
    ),
    Architecture(
        "TokenPruneMolmo2",
        "molmo2:PrunedMolmo2",
        "Molmo2ForConditionalGeneration",
        "molmo2",
        needs_pixels=True,
        has_markers=True,
    ),
    keye("TokenPruneKeye", "keye:PrunedKeye", "KeyeForConditionalGeneration", "Keye"),
    keye("TokenPruneKeyeVL1_5", "keye:PrunedKeyeVL1_5", "KeyeVL1_5ForConditionalGeneration", "KeyeVL1_5"),
    Architecture(
        "TokenPruneKimiK25",
        "kimi:PrunedKimiK25",
        "KimiK25ForConditionalGeneration",
        "kimi_k25",
        vision_chunks=True,
        saved_as="Kimi_K25ForConditionalGeneration",
        drops_patches=True,
        joins_ranks=True,
    ),
    kimi("TokenPruneKimiK3", "kimi_k3:PrunedKimiK3", "KimiK3ForConditionalGeneration", "kimi_k3"),
    kimi("TokenPruneKimiVL", "kimi_vl:PrunedKimiVL", "KimiVLForConditionalGeneration", "kimi_vl"),
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
    needs_pixels(
        "TokenPruneMuseGlimmer", "muse:PrunedMuseGlimmer", "MuseGlimmerForConditionalGeneration", "muse_glimmer"
    ),
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
    Architecture("TokenPruneGemma3", "gemma3:PrunedGemma3", "Gemma3ForConditionalGeneration", "gemma3"),
    Architecture("TokenPruneGemma4", "gemma4:PrunedGemma4", "Gemma4ForConditionalGeneration", "gemma4", padded=True),
    Architecture(
        "TokenPruneGemma4Unified",
        "gemma4:PrunedGemma4Unified",
        "Gemma4UnifiedForConditionalGeneration",
        "gemma4_unified",
        towerless=True,
    ),
    Architecture(
        "TokenPruneCohere2Vision",
        "cohere2_vision:PrunedCohere2Vision",
        "Cohere2VisionForConditionalGeneration",
        "cohere2_vision",
        needs_pixels=True,
        has_markers=True,
    ),
    native_resolution(
        "TokenPruneCohereCompass",
        "cohere_compass:PrunedCohereCompass",
        "CohereCompassForConditionalGeneration",
        "cohere_compass",
    ),
    Architecture(
        "TokenPruneLfm2VL",
        "lfm2_vl:PrunedLfm2VL",
        "Lfm2VlForConditionalGeneration",
        "lfm2_vl",
        needs_pixels=True,
        padded=True,
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
    Architecture(GENERIC, "generic:PrunedTransformers", "TransformersMultiModalForCausalLM", "llava"),
)
