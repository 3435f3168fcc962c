"""The families for which vLLM has its own models, as tiny models, and prompts with images of several shapes."""

from __future__ import annotations

from functools import partial

from helpers.served.compass import COMPASS_IMAGE, save_cohere_compass
from helpers.served.cosmos import COSMOS_VIDEO, save_cosmos, save_cosmos_edge
from helpers.served.dots import DOTS_IMAGE, save_dots_ocr
from helpers.served.engine import V2
from helpers.served.ernie import ERNIE_IMAGE, ERNIE_VISUAL, save_ernie4_5_vl
from helpers.served.family import FAR_COUNTED, FAR_MROPE, M_ROPE_ENDS, OWN_ROTATION, Family, Far
from helpers.served.gemma import (
    GEMMA4_IMAGE,
    GEMMA_IMAGE,
    GEMMA_VISUAL,
    save_gemma3,
    save_gemma4,
    save_gemma4_unified,
)
from helpers.served.glm import GLM_IMAGE, GLM_VIDEO, save_glm
from helpers.served.glm5 import save_glm5_next
from helpers.served.granite import save_granite4_vision
from helpers.served.interns2 import save_interns2
from helpers.served.internvl import CHAT_IMAGE, CHAT_OPTIONS, save_interns1, save_internvl_chat, save_qianfan_ocr
from helpers.served.keye import save_keye, save_keye1_5
from helpers.served.kimi_k3 import K3_IMAGE, save_kimi_k3
from helpers.served.kimi_vl import VL_OPTIONS, save_kimi_vl
from helpers.served.lfm import save_lfm2_vl
from helpers.served.marked import (
    COHERE_IMAGE,
    LLAMA_IMAGE,
    LLAMA_VISUAL,
    MISTRAL_IMAGE,
    save_cohere2_vision,
    save_idefics3,
    save_llama4,
    save_mistral3,
)
from helpers.served.minicpm import MINICPM_IMAGE, save_minicpm
from helpers.served.minimax import MINIMAX_IMAGE, save_minimax_m3
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
from helpers.served.molmo import save_molmo2
from helpers.served.molmo_images import MOLMO_IMAGE, MOLMO_VISUAL
from helpers.served.muse import MUSE_IMAGE, MUSE_VIDEO, save_muse
from helpers.served.nemotron import NANO_VL, save_nemotron
from helpers.served.omni import save_omni
from helpers.served.onevision2 import save_llava_onevision2
from helpers.served.opencua import OPENCUA_IMAGE, save_opencua
from helpers.served.packed import (
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
from helpers.served.qwen4 import save_qwen4_exp
from helpers.served.step import STEP_IMAGE, STEP_OPTIONS, save_step

FAMILIES = (
    Family("llava-clip", "TokenPruneLlava", save_llava),
    Family("llava-siglip", "TokenPruneLlava", partial(save_llava, kind="siglip")),
    Family("llava-next", "TokenPruneLlavaNext", save_llava_next),
    Family("llava-onevision", "TokenPruneLlavaOnevision", save_llava_onevision),
    Family("granite4_vision", "TokenPruneGranite4Vision", save_granite4_vision),
    Family("internvl", "TokenPruneInternVL", save_internvl, INTERN_IMAGE),
    Family("interns1", "TokenPruneInternS1", save_interns1, INTERN_IMAGE, options=CHAT_OPTIONS),
    Family(
        "internvl_chat",
        "TokenPruneInternVLChat",
        save_internvl_chat,
        CHAT_IMAGE,
        visual_token=INTERN_IMAGE,
        options=CHAT_OPTIONS,
    ),
    Family("qianfan_ocr", "TokenPruneQianfanOCR", save_qianfan_ocr, CHAT_IMAGE, visual_token=INTERN_IMAGE),
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
    Family("interns2", "TokenPruneInternS2", save_interns2, QWEN_IMAGE, QWEN_VIDEO, FAR_MROPE, options=CHAT_OPTIONS),
    Family(
        "qwen4_exp",
        "TokenPruneQwen4Exp",
        partial(save_qwen4_exp, ngrams=V2),  # only V2 gives vLLM's model the tokens before a step
        QWEN_IMAGE,
        QWEN_VIDEO,
        FAR_MROPE,
        n_blocks=14,
        options={"engram_config": {"cpu_offload": False}} if V2 else {},  # memory can be pinned only with a GPU
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
    Family("keye", "TokenPruneKeye", save_keye, PADDLE_IMAGE, far=FAR_MROPE, options=CHAT_OPTIONS),
    Family("keye_vl1_5", "TokenPruneKeyeVL1_5", save_keye1_5, PADDLE_IMAGE, far=FAR_MROPE, options=CHAT_OPTIONS),
    Family("hunyuan_vl", "TokenPruneHunyuanVL", save_hunyuan_vl, HUNYUAN_IMAGE, far=None, visual_token=HUNYUAN_VISUAL),
    Family(
        "ernie4_5_vl",
        "TokenPruneErnie4_5VL",
        save_ernie4_5_vl,
        ERNIE_IMAGE,
        far=FAR_MROPE,
        visual_token=ERNIE_VISUAL,
        options={**CHAT_OPTIONS, **OWN_ROTATION},
    ),
    Family(
        "exaone4_5",
        "TokenPruneExaone4_5",
        save_exaone4_5,
        QWEN_IMAGE,
        QWEN_VIDEO,
        far=FAR_COUNTED,
        n_blocks=30,
    ),
    Family("dots_ocr", "TokenPruneDotsOCR", save_dots_ocr, DOTS_IMAGE, far=FAR_COUNTED, options=CHAT_OPTIONS),
    Family(
        "llava_onevision2",
        "TokenPruneLlavaOnevision2",
        save_llava_onevision2,
        QWEN_IMAGE,
        far=FAR_COUNTED,
        options=CHAT_OPTIONS,
    ),
    Family("opencua", "TokenPruneOpenCUA", save_opencua, OPENCUA_IMAGE, far=FAR_COUNTED, options=CHAT_OPTIONS),
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
        "kimi_k3",
        "TokenPruneKimiK3",
        save_kimi_k3,
        K3_IMAGE,
        far=Far(256, 8, (196, 196), raises="index out of range"),
        visual_token="<|media_pad|>",
        n_more=3,
        options=OWN_ROTATION,
    ),
    Family(
        "kimi_vl",
        "TokenPruneKimiVL",
        save_kimi_vl,
        KIMI_IMAGE,
        far=Far(256, 8, (196, 196), raises="index out of range"),
        options=VL_OPTIONS,
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
    Family(
        "nemotron_nano_vl",
        "TokenPruneNemotronNanoVL",
        partial(save_nemotron, name=NANO_VL),
        n_blocks=14,
        options=CHAT_OPTIONS,
    ),
    Family("nemotron_omni", "TokenPruneNemotronNanoOmni", save_nemotron, n_blocks=14, options=CHAT_OPTIONS),
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
        partial(save_minicpm, version="4_7"),
        MINICPM_IMAGE,
        far=Far(80, 8, (400, 4), raises=M_ROPE_ENDS),
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
    Family(
        "molmo2",
        "TokenPruneMolmo2",
        save_molmo2,
        MOLMO_IMAGE,
        visual_token=MOLMO_VISUAL,
        n_step=256,
        n_more=2,
        options=CHAT_OPTIONS,
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
