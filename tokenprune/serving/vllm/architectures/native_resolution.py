"""Models whose vision tower encodes an image of almost any size as one sequence of patches."""

from __future__ import annotations

from functools import partial

from tokenprune.serving.vllm.architectures.architecture import Architecture

#: A model with M-RoPE, whose tower gets the patches of all images in one sequence.
joined_patches = partial(Architecture, mrope=True, drops_patches=True, joins_ranks=True)
#: The same for Keye-VL, whose features vLLM does not take, and which it has dropped.
keye = partial(Architecture, mrope=True, needs_pixels=True, drops_patches=True, last_release="0.33")
#: Kimi K3, K3.1 or Kimi-VL, whose features vLLM does not take, and whose position IDs count tokens.
kimi = partial(Architecture, needs_pixels=True, drops_patches=True, joins_ranks=True)
#: Ovis 2.5 or 2.6; vLLM runs both with one class, which takes no features.
ovis = partial(Architecture, home="ovis2_5:PrunedOvis2_5", needs_pixels=True, drops_patches=True)
NATIVE_RESOLUTION = (
    Architecture(
        "TokenPruneLlavaOnevision2",
        "llava_onevision2:PrunedLlavaOnevision2",
        "LlavaOnevision2ForConditionalGeneration",
        "llava_onevision2",
        drops_patches=True,
    ),
    joined_patches("TokenPruneQwen2VL", "qwen_vl:PrunedQwen2VL", "Qwen2VLForConditionalGeneration", "qwen2_vl"),
    joined_patches(
        "TokenPruneQwen2_5_VL", "qwen_vl:PrunedQwen2_5_VL", "Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"
    ),
    joined_patches("TokenPruneQwen3VL", "qwen_vl:PrunedQwen3VL", "Qwen3VLForConditionalGeneration", "qwen3_vl"),
    joined_patches(
        "TokenPruneQwen3VLMoe", "qwen_vl:PrunedQwen3VLMoe", "Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe"
    ),
    joined_patches("TokenPruneQwen3_5", "qwen3_5:PrunedQwen3_5", "Qwen3_5ForConditionalGeneration", "qwen3_5"),
    joined_patches(
        "TokenPruneQwen3_5Moe", "qwen3_5:PrunedQwen3_5Moe", "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe"
    ),
    joined_patches(
        "TokenPruneInternS2",
        "qwen3_5:PrunedInternS2",
        "InternS2PreviewForConditionalGeneration",
        "intern_s2_preview",
    ),
    joined_patches(
        "TokenPruneInternS2Mobius",
        "qwen3_5:PrunedInternS2Mobius",
        "InternS2MobiusForConditionalGeneration",
        "interns2_mobius",
    ),
    joined_patches("TokenPruneQwen4Exp", "qwen4_exp:PrunedQwen4Exp", "Qwen4ExpForConditionalGeneration", "qwen4_exp"),
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
    joined_patches(
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
    joined_patches("TokenPruneGlm4v", "glm4v:PrunedGlm4v", "Glm4vForConditionalGeneration", "glm4v"),
    joined_patches("TokenPruneGlm4vMoe", "glm4v:PrunedGlm4vMoe", "Glm4vMoeForConditionalGeneration", "glm4v_moe"),
    joined_patches("TokenPruneGlmOcr", "glm4v:PrunedGlmOcr", "GlmOcrForConditionalGeneration", "glm_ocr"),
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
        last_release="0.33",
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
    Architecture(
        "TokenPruneHyperClovaX",
        "hyperclovax:PrunedHyperClovaX",
        "HCXVisionV2ForCausalLM",
        "vlm",
        must_be_named=True,
        needs_pixels=True,
        drops_patches=True,
    ),
    Architecture(
        "TokenPruneLing3VL",
        "ling3_vl:PrunedLing3VL",
        "BailingMoeV3VLForConditionalGeneration",
        "bailing_moe_v3_vl",
        mrope=True,
        drops_patches=True,
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
        "TokenPruneIsaac",
        "isaac:PrunedIsaac",
        "IsaacForConditionalGeneration",
        "isaac",
        mrope=True,
        own_sections=True,
        needs_pixels=True,
        drops_patches=True,
    ),
    ovis("TokenPruneOvis2_5", replaces="Ovis2_5", model_type="ovis2_5"),
    ovis("TokenPruneOvis2_6", replaces="Ovis2_6ForCausalLM", model_type="ovis2_6"),
    ovis("TokenPruneOvis2_6Moe", replaces="Ovis2_6_MoeForCausalLM", model_type="ovis2_6_moe"),
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
        "TokenPrunePixtral",
        "pixtral:PrunedPixtral",
        "PixtralForConditionalGeneration",
        "pixtral",
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
    kimi(
        "TokenPruneKimiK31",
        "kimi_k3:PrunedKimiK3",
        "KimiK31ForConditionalGeneration",
        "kimi_k31",
        first_release="0.34",
    ),
    kimi("TokenPruneKimiVL", "kimi_vl:PrunedKimiVL", "KimiVLForConditionalGeneration", "kimi_vl"),
    Architecture(
        "TokenPruneMuseGlimmer",
        "muse:PrunedMuseGlimmer",
        "MuseGlimmerForConditionalGeneration",
        "muse_glimmer",
        needs_pixels=True,
    ),
    Architecture("TokenPruneGemma4", "gemma4:PrunedGemma4", "Gemma4ForConditionalGeneration", "gemma4", padded=True),
    Architecture(
        "TokenPruneGemma4Unified",
        "gemma4:PrunedGemma4Unified",
        "Gemma4UnifiedForConditionalGeneration",
        "gemma4_unified",
        towerless=True,
    ),
    joined_patches(
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
    Architecture(
        "TokenPruneLfm3VL",
        "lfm3_vl:PrunedLfm3VL",
        "Lfm3VlForConditionalGeneration",
        "lfm3_vl",
        first_release="0.34",
    ),
)
