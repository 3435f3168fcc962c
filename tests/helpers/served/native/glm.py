"""Tiny models of GLM's families, saved as vLLM and transformers load them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import transformers

from helpers.served.family import FAR_MROPE, Family
from helpers.served.models import CHAT, N_LAYERS, PATCH, decoder, save, tokenizer

GLM_IMAGE = "<|begin_of_image|> <|image|> <|end_of_image|>"
GLM_VIDEO = GLM_IMAGE.replace("image", "video")
MARKS = (
    "<|image|>",
    "<|video|>",
    *(f"<|{side}_of_{kind}|>" for kind in ("image", "video") for side in ("begin", "end")),
)
#: Class names by model_type.
NAMES = {"glm4v": "Glm4v", "glm4v_moe": "Glm4vMoe", "glm_ocr": "GlmOcr"}
#: One layer without experts, then layers with experts. vLLM reads `use_qk_norm`, as in published configurations.
EXPERTS = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
    "use_qk_norm": False,
}


def save_glm(folder: Path, kind: str, **settings: Any) -> None:
    """GLM-4.1V, GLM-4.5V or GLM-OCR, `kind` as in its model_type."""
    words = tokenizer(*MARKS)
    image, video, *ends = words.convert_tokens_to_ids(list(MARKS))
    names = ("image_start_token_id", "image_end_token_id", "video_start_token_id", "video_end_token_id")
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3], "partial_rotary_factor": 0.5}
    text = decoder(len(words), rope_parameters=rope, **settings)
    if kind == "glm4v_moe":
        text |= EXPERTS
    if kind == "glm_ocr":  # vLLM takes the merger's width from here; transformers uses three times its output width
        text["intermediate_size"] = 3 * 64
    vision: dict[str, Any] = {"depth": N_LAYERS, "num_heads": 2, "hidden_size": 64, "intermediate_size": 96}
    vision |= {"patch_size": PATCH, "image_size": 8 * PATCH, "spatial_merge_size": 2, "out_hidden_size": 64}
    config = getattr(transformers, f"{NAMES[kind]}Config")(
        vision_config=vision,
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        **dict(zip(names, ends, strict=True)),
    )
    sizes = {"shortest_edge": 2 * (4 * PATCH) ** 2, "longest_edge": 2 * (14 * PATCH) ** 2}  # of pairs of frames
    processor = transformers.Glm4vProcessor(
        image_processor=transformers.Glm4vImageProcessor(patch_size=PATCH, size=sizes),
        tokenizer=words,
        video_processor=transformers.Glm4vVideoProcessor(patch_size=PATCH),
        chat_template=CHAT.replace("IMAGE", GLM_IMAGE),
    )
    save(getattr(transformers, f"{NAMES[kind]}ForConditionalGeneration")(config), processor, folder)


FAMILIES = (
    Family("glm4v", "TokenPruneGlm4v", partial(save_glm, kind="glm4v"), GLM_IMAGE, GLM_VIDEO, FAR_MROPE),
    Family("glm4v_moe", "TokenPruneGlm4vMoe", partial(save_glm, kind="glm4v_moe"), GLM_IMAGE, GLM_VIDEO, FAR_MROPE),
    Family("glm_ocr", "TokenPruneGlmOcr", partial(save_glm, kind="glm_ocr"), GLM_IMAGE, GLM_VIDEO, FAR_MROPE),
)
