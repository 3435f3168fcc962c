"""Models that pack the patches of images of any size for a tower like SigLIP's: PaddleOCR-VL, Keye-VL, Isaac and
HunyuanOCR."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

from tokenprune.serving.vllm.architectures.architecture import Architecture


def isaac_described(config: Any) -> Any:
    """Isaac's config with the name that PaddleOCR-VL's has for how many patches are merged along each side."""
    named, vision = copy(config), copy(config.vision_config)
    vision.spatial_merge_size = vision.pixel_shuffle_scale_factor
    named.vision_config = vision
    return named


def hunyuan_misfit(config: Any) -> str | None:
    section = (getattr(config.get_text_config(), "rope_parameters", None) or {}).get("mrope_section")
    if len(section or ()) == 4:
        return None
    return (
        f"mrope_section={section}: of this family, only models whose position IDs have four components, the first "
        f"of which counts tokens, can be pruned inside vLLM. Serve the model without pruning."
    )


packed = partial(Architecture, mrope=True, drops_patches=True)
#: Their features vLLM does not take, and transformers has no class for them.
only_vllm = partial(packed, like="paddleocr_vl", tower="towers.siglip_packed:KEYE_TOWER", needs_pixels=True)
keye = partial(only_vllm, home="keye", text_part="", last_release="0.33")
RECORDS = (
    packed(
        "TokenPrunePaddleOCRVL", "paddleocr_vl", "paddleocr_vl",
        title="PaddleOCR-VL", published=("PaddlePaddle/PaddleOCR-VL-1.5",),
        tower="towers.siglip_packed:PADDLE_TOWER", takes_adapters=False,
    ),
    keye(
        "TokenPruneKeye", "Keye", title="Keye-VL, Keye-VL 1.5", published=("Kwai-Keye/Keye-VL-8B-Preview",),
        other_names=(r"\S+/Keye-VL-(2|671B)",),
    ),
    keye("TokenPruneKeyeVL1_5", "KeyeVL1_5", published=("Kwai-Keye/Keye-VL-1_5-8B",)),
    only_vllm(
        "TokenPruneIsaac", "isaac", "isaac",
        title="Isaac 0.1 and 0.2", published=("PerceptronAI/Isaac-0.1", "PerceptronAI/Isaac-0.2-2B-Preview"),
        other_names=(r"\S+/Isaac-(?!0\.[12])",),
        text_part="text_config", described=isaac_described, own_sections=True,
    ),
    Architecture(
        "TokenPruneHunyuanVL", "hunyuan_vl", "hunyuan_vl", "HunYuanVLForConditionalGeneration",
        title="HunyuanOCR", published=("tencent/HunyuanOCR",), names=(r"\S+/HunyuanOCR",),
        tower="towers.siglip_packed:HUNYUAN_TOWER", misfit=hunyuan_misfit, mrope=True, needs_pixels=True,
    ),
)  # fmt: skip
