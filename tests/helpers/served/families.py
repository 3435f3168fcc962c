"""The families for which vLLM has its own models, as tiny models whose checkpoints are stored under the same names."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from helpers.served import marks
from helpers.served.engine import V2
from helpers.served.family import FAR_COUNTED, FAR_ENDS, FAR_MROPE, M_ROPE_ENDS, OWN_ROTATION, Family, Far
from helpers.served.minicpmv import MINICPMV_IMAGE, MINICPMV_VIDEO, MINICPMV_VISUAL
from helpers.served.molmo import MOLMO_IMAGE, MOLMO_VISUAL
from helpers.served.stored import stored

#: Engine options: the checkpoint contains code.
CODE = {"trust_remote_code": True}
#: Options for a Nemotron. By default, vLLM 0.34 rounds resized images to whole bytes, and transformers does not.
NEMOTRON = {**CODE, "mm_device_do_normalize": False}
#: For images of up to 49 visual tokens whose position IDs count tokens, and for MiniCPM-V.
FAR = Far(256, 8, (196, 196))
FAR_SLICES = Far(136, 6, (224, 224), raises=M_ROPE_ENDS)
COMPASS_IMAGE = "<|VISION_START|> <|IMAGE_PAD|> <|VISION_END|>"
ERNIE_IMAGE = "<|IMAGE_START|> <|image@placeholder|> <|IMAGE_END|>"
HYPERCLOVAX = ("<|image_start|> <|IMAGE_PAD|> <|image_end|>", "<|video_start|> <|VIDEO_PAD|> <|video_end|>")


def save_kimi_k31(folder: Path, **settings: Any) -> None:
    """The same model as Kimi K3."""
    stored("kimi_k3")(folder, **settings)
    names = {"architectures": ["KimiK31ForConditionalGeneration"], "model_type": "kimi_k31"}
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **names}))


def family(name: str, architecture: str, image: str = marks.IMAGE, video: str | None = None, **facts: Any) -> Family:
    facts = {"save": stored(name), **facts}
    return Family(name, f"TokenPrune{architecture}", image=image, video=video, **facts)


coded = partial(family, options=CODE)
qwen = partial(family, image=marks.QWEN_IMAGE, video=marks.QWEN_VIDEO, far=FAR_MROPE)
omni = partial(family, image=marks.QWEN_IMAGE, far=FAR_MROPE)
glm = partial(family, image=marks.GLM_IMAGE, video=marks.GLM_IMAGE.replace("image", "video"))
kimi = partial(family, far=FAR_ENDS)
kimi_k3 = partial(
    kimi, image="<|kimi_image_placeholder|>", visual_token="<|media_pad|>", n_more=3, options=OWN_ROTATION
)
minicpm = partial(family, image=marks.MINICPM_IMAGE, far=FAR_SLICES, n_more=3)
minicpmv = partial(coded, image=MINICPMV_IMAGE, video=MINICPMV_VIDEO, visual_token=MINICPMV_VISUAL, n_more=4)
gemma4 = partial(family, image=marks.GEMMA4_IMAGE, n_blocks=16)
paddle = partial(family, image=marks.PADDLE_IMAGE, far=FAR_MROPE)
#: transformers loads them as published.
NATIVE_FAMILIES = (
    family("llava-clip", "Llava"),
    family("llava-siglip", "Llava"),
    family("llava-next", "LlavaNext"),
    family("llava-onevision", "LlavaOnevision"),
    family("granite4_vision", "Granite4Vision"),
    family("aria", "Aria", "<|fim_prefix|> <|img|> <|fim_suffix|>"),
    family("internvl", "InternVL", marks.INTERN_IMAGE),
    qwen("qwen2_vl", "Qwen2VL"),
    qwen("qwen2_5_vl", "Qwen2_5_VL"),
    qwen("qwen3_vl", "Qwen3VL"),
    qwen("qwen3_vl_moe", "Qwen3VLMoe"),
    qwen("qwen3_5", "Qwen3_5"),
    qwen("qwen3_5_moe", "Qwen3_5Moe"),
    omni("qwen2_5_omni", "Qwen2_5Omni"),
    omni("qwen3_omni_moe", "Qwen3Omni"),
    qwen("cosmos3_omni", "Cosmos3"),
    # vLLM 0.32 resizes images lower than a visual token, 32 pixels, differently from transformers.
    qwen("cosmos3_edge", "Cosmos3Edge", video=marks.COSMOS_VIDEO, far=Far(64, 7, (1376, 32), raises=M_ROPE_ENDS)),
    glm("glm4v", "Glm4v", far=FAR_MROPE),
    glm("glm4v_moe", "Glm4vMoe", far=FAR_MROPE),
    glm("glm_ocr", "GlmOcr", far=FAR_MROPE),
    glm("glm5_next", "Glm5Next"),
    family("minimax_m3", "MiniMaxM3", marks.MINIMAX_IMAGE, far=Far(256, 8, (196, 196), raises=M_ROPE_ENDS)),
    paddle("paddleocr_vl", "PaddleOCRVL"),
    # Its processor wants nothing between the marks.
    family("hunyuan_vl", "HunyuanVL", f"<start>{marks.IMAGE}<end>", far=None, visual_token=marks.IMAGE),
    qwen("exaone4_5", "Exaone4_5", far=FAR_COUNTED, n_blocks=30),
    family("mistral3", "Mistral3", marks.MISTRAL_IMAGE, far=FAR),
    family("lighton_ocr", "LightOnOCR", "<|image_pad|>", far=FAR),
    kimi("kimi_k25", "KimiK25", marks.KIMI_IMAGE, options=OWN_ROTATION),
    kimi("step3p7", "Step3p7", marks.STEP_IMAGE, n_blocks=30, n_more=1, options={**CODE, **OWN_ROTATION}),
    family("muse_glimmer", "MuseGlimmer", "<|patch|>", "<|video|>", far=FAR, n_blocks=30, n_more=1),
    family("idefics3", "Idefics3"),
    family("smolvlm", "SmolVLM"),
    family("llama4", "Llama4", "<|image|>", visual_token="<|patch|>", n_blocks=30),
    minicpm("minicpmv4_6", "MiniCPMV4_6"),
    minicpm("minicpmv4_7", "MiniCPMV4_7", far=Far(80, 8, (400, 4), raises=M_ROPE_ENDS)),
    minicpm("minicpm_ocr", "MiniCPMOcr"),
    # No step may end within an image. vLLM 0.32 ensures that only if no other request shares the step.
    family(
        "gemma3",
        "Gemma3",
        marks.GEMMA_IMAGE,
        far=Far(64, 6, (140, 112)),
        visual_token="<image_soft_token>",
        n_blocks=30,
        n_step=256,
    ),
    gemma4("gemma4", "Gemma4"),
    gemma4("gemma4-large", "Gemma4", n_step=256),
    family("cohere2_vision", "Cohere2Vision", "<|IMG_PATCH|>", n_blocks=30),
    gemma4("gemma4_unified", "Gemma4Unified", n_step=256, settings={"strategy": "divprune", "keep_ratio": 0.25}),
    family(
        "cohere_compass", "CohereCompass", "<|VISION_START|> <|IMAGE_PAD|> <|VISION_END|>", far=FAR_MROPE, n_blocks=30
    ),
    family(
        "lfm2_vl",
        "Lfm2VL",
        far=Far(256, 8, (140, 112), raises="index out of range"),
        n_blocks=20,
        options=OWN_ROTATION,
    ),
)
#: transformers cannot load them as published. Their answers are stored, too.
PUBLISHED_FAMILIES = (
    coded("interns1", "InternS1", marks.INTERN_IMAGE),
    coded("internvl_chat", "InternVLChat", marks.CHAT_IMAGE, visual_token=marks.INTERN_IMAGE),
    family("qianfan_ocr", "QianfanOCR", marks.CHAT_IMAGE, visual_token=marks.INTERN_IMAGE),
    qwen("interns2", "InternS2", options=CODE),
    qwen("interns2_mobius", "InternS2Mobius", options=CODE),
    coded("hyperclovax", "HyperClovaX", *HYPERCLOVAX, far=FAR_COUNTED),
    qwen(
        "qwen4_exp",
        "Qwen4Exp",
        # Only V2 gives vLLM's model the tokens before a step, whose n-grams it embeds.
        save=stored("qwen4_exp_ngrams" if V2 else "qwen4_exp"),
        n_blocks=14,
        options={"engram_config": {"cpu_offload": False}} if V2 else {},  # memory can be pinned only with a GPU
    ),
    # vLLM adds these marks to an image's token if something is between them.
    family("ling3_vl", "Ling3VL", marks.QWEN_IMAGE.replace(" ", ""), far=FAR_MROPE, visual_token="<|image_pad|>"),
    family(
        "isaac",
        "Isaac",
        # Enough words that the rows and columns of an image, which count from zero, are not the largest position IDs.
        f"w70 w71 w72 w73 {marks.IMAGE}",
        far=None,  # in position IDs, an image takes little more than a token of text
        visual_token="<|image_pad|>",
        n_more=4,
    ),
    paddle("keye", "Keye", options=CODE),
    paddle("keye_vl1_5", "KeyeVL1_5", options=CODE),
    family(
        "ernie4_5_vl",
        "Ernie4_5VL",
        ERNIE_IMAGE,
        far=FAR_MROPE,
        visual_token="<|IMAGE_PLACEHOLDER|>",
        options={**CODE, **OWN_ROTATION},
    ),
    family("deepseek_ocr", "DeepseekOCR", n_blocks=14),
    family("deepseek_ocr2", "DeepseekOCR2", n_blocks=14),
    family(
        "unlimited_ocr",
        "UnlimitedOCR",
        far=Far(256, 14, (140, 112)),
        n_blocks=14,
        caches=False,
        options={"mm_encoder_attn_backend": "TORCH_SDPA"},  # vLLM chooses one for GPUs
    ),
    coded("dots_ocr", "DotsOCR", "<|img|> <|imgpad|> <|endofimg|>", far=FAR_COUNTED),
    coded("llava_onevision2", "LlavaOnevision2", marks.QWEN_IMAGE, far=FAR_COUNTED),
    # The unpruned prompt must fit: families/test_mistral.py goes beyond the table in an answer.
    family("pixtral", "Pixtral", marks.MISTRAL_IMAGE, far=None),
    coded("opencua", "OpenCUA", "<|media_begin|> <|media_placeholder|> <|media_end|>", far=FAR_COUNTED),
    coded("ovis2_5", "Ovis2_5", video="<video>", far=FAR_COUNTED, visual_token="<|image_pad|>"),
    kimi_k3("kimi_k3", "KimiK3"),
    kimi_k3("kimi_k31", "KimiK31", save=save_kimi_k31),
    kimi("kimi_vl", "KimiVL", marks.KIMI_IMAGE, options={**CODE, **OWN_ROTATION}),
    coded("step_vl", "StepVL", marks.STEP_IMAGE, far=FAR, n_more=1),
    family("nemotron_nano_vl", "NemotronNanoVL", n_blocks=14, options=NEMOTRON),
    family("nemotron_omni", "NemotronNanoOmni", n_blocks=14, options=NEMOTRON),
    minicpmv("minicpmv2_6", "MiniCPMV"),
    minicpmv("minicpmo4_5", "MiniCPMO"),
    family("lfm3_vl", "Lfm3VL", marks.LFM3_IMAGE, marks.LFM3_VIDEO, far=FAR_COUNTED, n_blocks=30, options=OWN_ROTATION),
    coded("molmo2", "Molmo2", MOLMO_IMAGE, visual_token=MOLMO_VISUAL, n_step=256, n_more=2),
)
FAMILIES = (*NATIVE_FAMILIES, *PUBLISHED_FAMILIES)
