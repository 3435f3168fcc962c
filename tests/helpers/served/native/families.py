"""The families that vLLM and transformers load from the same files."""

from __future__ import annotations

from functools import partial

from helpers.served.family import FAR_COUNTED, FAR_MROPE, M_ROPE_ENDS, OWN_ROTATION, Family, Far
from helpers.served.models import (
    INTERN_IMAGE,
    QWEN_IMAGE,
    QWEN_VIDEO,
    save_internvl,
    save_llava,
    save_llava_next,
    save_llava_onevision,
    save_qwen,
)
from helpers.served.native.compass import COMPASS_IMAGE, save_cohere_compass
from helpers.served.native.cosmos import COSMOS_VIDEO, save_cosmos, save_cosmos_edge
from helpers.served.native.gemma import (
    GEMMA4_IMAGE,
    GEMMA_IMAGE,
    GEMMA_VISUAL,
    save_gemma3,
    save_gemma4,
    save_gemma4_unified,
)
from helpers.served.native.glm import GLM_IMAGE, GLM_VIDEO, save_glm
from helpers.served.native.glm5 import save_glm5_next
from helpers.served.native.granite import save_granite4_vision
from helpers.served.native.lfm import save_lfm2_vl
from helpers.served.native.marked import (
    COHERE_IMAGE,
    LLAMA_IMAGE,
    LLAMA_VISUAL,
    MISTRAL_IMAGE,
    save_cohere2_vision,
    save_idefics3,
    save_llama4,
    save_mistral3,
)
from helpers.served.native.minicpm import MINICPM_IMAGE, save_minicpm
from helpers.served.native.minimax import MINIMAX_IMAGE, save_minimax_m3
from helpers.served.native.muse import MUSE_IMAGE, MUSE_VIDEO, save_muse
from helpers.served.native.omni import save_omni
from helpers.served.native.packed import (
    HUNYUAN_IMAGE,
    HUNYUAN_VISUAL,
    KIMI_IMAGE,
    LIGHTON_IMAGE,
    PADDLE_IMAGE,
    save_exaone4_5,
    save_hunyuan_vl,
    save_kimi,
    save_lighton_ocr,
    save_paddleocr_vl,
)
from helpers.served.native.step import STEP_IMAGE, STEP_OPTIONS, save_step

NATIVE_FAMILIES = (
    Family("llava-clip", "TokenPruneLlava", save_llava),
    Family("llava-siglip", "TokenPruneLlava", partial(save_llava, kind="siglip")),
    Family("llava-next", "TokenPruneLlavaNext", save_llava_next),
    Family("llava-onevision", "TokenPruneLlavaOnevision", save_llava_onevision),
    Family("granite4_vision", "TokenPruneGranite4Vision", save_granite4_vision),
    Family("internvl", "TokenPruneInternVL", save_internvl, INTERN_IMAGE),
    Family("qwen2_vl", "TokenPruneQwen2VL", partial(save_qwen, kind="qwen2_vl"), QWEN_IMAGE, QWEN_VIDEO, FAR_MROPE),
    Family(
        "qwen2_5_vl", "TokenPruneQwen2_5_VL", partial(save_qwen, kind="qwen2_5_vl"), QWEN_IMAGE, QWEN_VIDEO, FAR_MROPE
    ),
    Family("qwen3_vl", "TokenPruneQwen3VL", partial(save_qwen, kind="qwen3_vl"), QWEN_IMAGE, QWEN_VIDEO, FAR_MROPE),
    Family(
        "qwen3_vl_moe",
        "TokenPruneQwen3VLMoe",
        partial(save_qwen, kind="qwen3_vl_moe"),
        QWEN_IMAGE,
        QWEN_VIDEO,
        FAR_MROPE,
    ),
    Family("qwen3_5", "TokenPruneQwen3_5", partial(save_qwen, kind="qwen3_5"), QWEN_IMAGE, QWEN_VIDEO, FAR_MROPE),
    Family(
        "qwen3_5_moe", "TokenPruneQwen3_5Moe", partial(save_qwen, kind="qwen3_5_moe"), QWEN_IMAGE, QWEN_VIDEO, FAR_MROPE
    ),
    Family("qwen2_5_omni", "TokenPruneQwen2_5Omni", partial(save_omni, kind="qwen2_5_omni"), QWEN_IMAGE, far=FAR_MROPE),
    Family(
        "qwen3_omni_moe", "TokenPruneQwen3Omni", partial(save_omni, kind="qwen3_omni_moe"), QWEN_IMAGE, far=FAR_MROPE
    ),
    Family("cosmos3_omni", "TokenPruneCosmos3", save_cosmos, QWEN_IMAGE, QWEN_VIDEO, FAR_MROPE),
    # vLLM 0.32 resizes images lower than a visual token, 32 pixels, differently from transformers.
    Family(
        "cosmos3_edge",
        "TokenPruneCosmos3Edge",
        save_cosmos_edge,
        QWEN_IMAGE,
        COSMOS_VIDEO,
        Far(64, 7, (1376, 32), raises=M_ROPE_ENDS),
    ),
    Family("glm4v", "TokenPruneGlm4v", partial(save_glm, kind="glm4v"), GLM_IMAGE, GLM_VIDEO, FAR_MROPE),
    Family("glm4v_moe", "TokenPruneGlm4vMoe", partial(save_glm, kind="glm4v_moe"), GLM_IMAGE, GLM_VIDEO, FAR_MROPE),
    Family("glm_ocr", "TokenPruneGlmOcr", partial(save_glm, kind="glm_ocr"), GLM_IMAGE, GLM_VIDEO, FAR_MROPE),
    Family("glm5_next", "TokenPruneGlm5Next", save_glm5_next, GLM_IMAGE, GLM_VIDEO),
    Family(
        "minimax_m3",
        "TokenPruneMiniMaxM3",
        save_minimax_m3,
        MINIMAX_IMAGE,
        far=Far(256, 8, (196, 196), raises=M_ROPE_ENDS),
    ),
    Family("paddleocr_vl", "TokenPrunePaddleOCRVL", save_paddleocr_vl, PADDLE_IMAGE, far=FAR_MROPE),
    Family("hunyuan_vl", "TokenPruneHunyuanVL", save_hunyuan_vl, HUNYUAN_IMAGE, far=None, visual_token=HUNYUAN_VISUAL),
    Family(
        "exaone4_5",
        "TokenPruneExaone4_5",
        save_exaone4_5,
        QWEN_IMAGE,
        QWEN_VIDEO,
        far=FAR_COUNTED,
        n_blocks=30,
    ),
    Family("mistral3", "TokenPruneMistral3", save_mistral3, MISTRAL_IMAGE, far=Far(256, 8, (196, 196))),
    Family("lighton_ocr", "TokenPruneLightOnOCR", save_lighton_ocr, LIGHTON_IMAGE, far=Far(256, 8, (196, 196))),
    Family(
        "kimi_k25",
        "TokenPruneKimiK25",
        save_kimi,
        KIMI_IMAGE,
        far=Far(256, 8, (196, 196), raises="index out of range"),
        options=OWN_ROTATION,
    ),
    Family(
        "step3p7",
        "TokenPruneStep3p7",
        save_step,
        STEP_IMAGE,
        far=Far(256, 8, (196, 196), raises="index out of range"),
        n_blocks=30,
        n_more=1,
        options=STEP_OPTIONS,
    ),
    Family(
        "muse_glimmer",
        "TokenPruneMuseGlimmer",
        save_muse,
        MUSE_IMAGE,
        MUSE_VIDEO,
        far=Far(256, 8, (196, 196)),
        n_blocks=30,
        n_more=1,
    ),
    Family("idefics3", "TokenPruneIdefics3", partial(save_idefics3, kind="idefics3")),
    Family("smolvlm", "TokenPruneSmolVLM", partial(save_idefics3, kind="smolvlm")),
    Family("llama4", "TokenPruneLlama4", save_llama4, LLAMA_IMAGE, visual_token=LLAMA_VISUAL, n_blocks=30),
    Family(
        "minicpmv4_6",
        "TokenPruneMiniCPMV4_6",
        save_minicpm,
        MINICPM_IMAGE,
        far=Far(136, 6, (224, 224), raises=M_ROPE_ENDS),
        n_more=3,
    ),
    Family(
        "minicpmv4_7",
        "TokenPruneMiniCPMV4_7",
        partial(save_minicpm, name="MiniCPMV4_7"),
        MINICPM_IMAGE,
        far=Far(80, 8, (400, 4), raises=M_ROPE_ENDS),
        n_more=3,
    ),
    Family(
        "minicpm_ocr",
        "TokenPruneMiniCPMOcr",
        partial(save_minicpm, name="MiniCPMOcr"),
        MINICPM_IMAGE,
        far=Far(136, 6, (224, 224), raises=M_ROPE_ENDS),
        n_more=3,
    ),
    # No step may end within an image. vLLM 0.32 ensures that only if no other request shares the step.
    Family(
        "gemma3",
        "TokenPruneGemma3",
        save_gemma3,
        GEMMA_IMAGE,
        far=Far(64, 6, (140, 112)),
        visual_token=GEMMA_VISUAL,
        n_blocks=30,
        n_step=256,
    ),
    Family("gemma4", "TokenPruneGemma4", save_gemma4, GEMMA4_IMAGE, n_blocks=16),
    Family(
        "gemma4-large", "TokenPruneGemma4", partial(save_gemma4, kind="large"), GEMMA4_IMAGE, n_blocks=16, n_step=256
    ),
    Family("cohere2_vision", "TokenPruneCohere2Vision", save_cohere2_vision, COHERE_IMAGE, n_blocks=30),
    Family(
        "gemma4_unified",
        "TokenPruneGemma4Unified",
        save_gemma4_unified,
        GEMMA4_IMAGE,
        n_blocks=16,
        n_step=256,
        settings={"strategy": "divprune", "keep_ratio": 0.25},
    ),
    Family("cohere_compass", "TokenPruneCohereCompass", save_cohere_compass, COMPASS_IMAGE, far=FAR_MROPE, n_blocks=30),
    Family(
        "lfm2_vl",
        "TokenPruneLfm2VL",
        save_lfm2_vl,
        far=Far(256, 8, (140, 112), raises="index out of range"),
        n_blocks=20,
        options=OWN_ROTATION,
    ),
)
