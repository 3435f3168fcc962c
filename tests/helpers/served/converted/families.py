"""The families that transformers cannot load as published."""

from __future__ import annotations

from functools import partial

from helpers.served.converted.deepseek import save_deepseek_ocr, save_deepseek_ocr2, save_unlimited_ocr
from helpers.served.converted.dots import DOTS_IMAGE, save_dots_ocr
from helpers.served.converted.ernie import ERNIE_IMAGE, ERNIE_VISUAL, save_ernie4_5_vl
from helpers.served.converted.hyperclovax import HYPERCLOVAX_IMAGE, HYPERCLOVAX_VIDEO, save_hyperclovax
from helpers.served.converted.interns2 import save_interns2
from helpers.served.converted.internvl import (
    CHAT_IMAGE,
    CHAT_OPTIONS,
    save_interns1,
    save_internvl_chat,
    save_qianfan_ocr,
)
from helpers.served.converted.isaac import ISAAC_IMAGE, ISAAC_VISUAL, save_isaac
from helpers.served.converted.keye import save_keye, save_keye1_5
from helpers.served.converted.kimi_k3 import K3_IMAGE, save_kimi_k3, save_kimi_k31
from helpers.served.converted.kimi_vl import VL_OPTIONS, save_kimi_vl
from helpers.served.converted.lfm3 import LFM3_IMAGE, LFM3_VIDEO, save_lfm3_vl
from helpers.served.converted.ling3 import LING_IMAGE, LING_VISUAL, save_ling3_vl
from helpers.served.converted.minicpmv import save_minicpmv
from helpers.served.converted.minicpmv_images import MINICPMV_IMAGE, MINICPMV_VIDEO, MINICPMV_VISUAL
from helpers.served.converted.mistral import MISTRAL_IMAGE, save_mistral
from helpers.served.converted.mobius import save_interns2_mobius
from helpers.served.converted.molmo import save_molmo2
from helpers.served.converted.molmo_images import MOLMO_IMAGE, MOLMO_VISUAL
from helpers.served.converted.nemotron import NANO_VL, NEMOTRON_OPTIONS, save_nemotron
from helpers.served.converted.onevision2 import save_llava_onevision2
from helpers.served.converted.opencua import OPENCUA_IMAGE, save_opencua
from helpers.served.converted.ovis import OVIS_VIDEO, OVIS_VISUAL, save_ovis2_5
from helpers.served.converted.qwen4 import save_qwen4_exp
from helpers.served.converted.step_vl import save_step_vl
from helpers.served.engine import V2
from helpers.served.family import FAR_COUNTED, FAR_MROPE, OWN_ROTATION, Family, Far
from helpers.served.models import INTERN_IMAGE, QWEN_IMAGE, QWEN_VIDEO
from helpers.served.native.packed import KIMI_IMAGE, PADDLE_IMAGE
from helpers.served.native.step import STEP_IMAGE

kimi_k3 = partial(
    Family,
    image=K3_IMAGE,
    far=Far(256, 8, (196, 196), raises="index out of range"),
    visual_token="<|media_pad|>",
    n_more=3,
    options=OWN_ROTATION,
)
CONVERTED_FAMILIES = (
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
    Family("interns2", "TokenPruneInternS2", save_interns2, QWEN_IMAGE, QWEN_VIDEO, FAR_MROPE, options=CHAT_OPTIONS),
    Family(
        "interns2_mobius",
        "TokenPruneInternS2Mobius",
        save_interns2_mobius,
        QWEN_IMAGE,
        QWEN_VIDEO,
        FAR_MROPE,
        options=CHAT_OPTIONS,
    ),
    Family(
        "hyperclovax",
        "TokenPruneHyperClovaX",
        save_hyperclovax,
        HYPERCLOVAX_IMAGE,
        HYPERCLOVAX_VIDEO,
        FAR_COUNTED,
        options=CHAT_OPTIONS,
    ),
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
    Family("ling3_vl", "TokenPruneLing3VL", save_ling3_vl, LING_IMAGE, far=FAR_MROPE, visual_token=LING_VISUAL),
    Family(
        "isaac",
        "TokenPruneIsaac",
        save_isaac,
        ISAAC_IMAGE,
        far=None,  # in position IDs, an image takes little more than a token of text
        visual_token=ISAAC_VISUAL,
        n_more=4,
    ),
    Family("keye", "TokenPruneKeye", save_keye, PADDLE_IMAGE, far=FAR_MROPE, options=CHAT_OPTIONS),
    Family("keye_vl1_5", "TokenPruneKeyeVL1_5", save_keye1_5, PADDLE_IMAGE, far=FAR_MROPE, options=CHAT_OPTIONS),
    Family(
        "ernie4_5_vl",
        "TokenPruneErnie4_5VL",
        save_ernie4_5_vl,
        ERNIE_IMAGE,
        far=FAR_MROPE,
        visual_token=ERNIE_VISUAL,
        options={**CHAT_OPTIONS, **OWN_ROTATION},
    ),
    Family("deepseek_ocr", "TokenPruneDeepseekOCR", save_deepseek_ocr, n_blocks=14),
    Family("deepseek_ocr2", "TokenPruneDeepseekOCR2", save_deepseek_ocr2, n_blocks=14),
    Family(
        "unlimited_ocr",
        "TokenPruneUnlimitedOCR",
        save_unlimited_ocr,
        far=Far(256, 14, (140, 112)),
        n_blocks=14,
        caches=False,
        options={"mm_encoder_attn_backend": "TORCH_SDPA"},  # vLLM chooses one for GPUs
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
    # The unpruned prompt must fit: families/test_mistral.py goes beyond the table in an answer.
    Family("pixtral", "TokenPrunePixtral", save_mistral, MISTRAL_IMAGE, far=None),
    Family("opencua", "TokenPruneOpenCUA", save_opencua, OPENCUA_IMAGE, far=FAR_COUNTED, options=CHAT_OPTIONS),
    Family(
        "ovis2_5",
        "TokenPruneOvis2_5",
        save_ovis2_5,
        video=OVIS_VIDEO,
        far=FAR_COUNTED,
        visual_token=OVIS_VISUAL,
        options=CHAT_OPTIONS,
    ),
    kimi_k3("kimi_k3", "TokenPruneKimiK3", save_kimi_k3),
    kimi_k3("kimi_k31", "TokenPruneKimiK31", save_kimi_k31),
    Family(
        "kimi_vl",
        "TokenPruneKimiVL",
        save_kimi_vl,
        KIMI_IMAGE,
        far=Far(256, 8, (196, 196), raises="index out of range"),
        options=VL_OPTIONS,
    ),
    Family(
        "step_vl",
        "TokenPruneStepVL",
        save_step_vl,
        STEP_IMAGE,
        far=Far(256, 8, (196, 196)),
        n_more=1,
        options=CHAT_OPTIONS,
    ),
    Family(
        "nemotron_nano_vl",
        "TokenPruneNemotronNanoVL",
        partial(save_nemotron, name=NANO_VL),
        n_blocks=14,
        options=NEMOTRON_OPTIONS,
    ),
    Family("nemotron_omni", "TokenPruneNemotronNanoOmni", save_nemotron, n_blocks=14, options=NEMOTRON_OPTIONS),
    *(
        Family(
            name,
            architecture,
            partial(save_minicpmv, version=version, omni=name.startswith("minicpmo")),
            MINICPMV_IMAGE,
            MINICPMV_VIDEO,
            visual_token=MINICPMV_VISUAL,
            n_more=4,
            options=CHAT_OPTIONS,
        )
        for name, architecture, version in (
            ("minicpmv2_6", "TokenPruneMiniCPMV", "2.6"),
            ("minicpmo4_5", "TokenPruneMiniCPMO", "4.5"),
        )
    ),
    Family(
        "lfm3_vl",
        "TokenPruneLfm3VL",
        save_lfm3_vl,
        LFM3_IMAGE,
        LFM3_VIDEO,
        FAR_COUNTED,
        n_blocks=30,
        options=OWN_ROTATION,
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
)
