"""The families that vLLM and transformers load from the same files: `FAMILIES` of the modules here, and those whose
models are saved by `models`."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pkgutil import iter_modules

from helpers.served import native
from helpers.served.family import FAR_MROPE, Family
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

NATIVE_FAMILIES = (
    Family("llava-clip", "TokenPruneLlava", save_llava),
    Family("llava-siglip", "TokenPruneLlava", partial(save_llava, kind="siglip")),
    Family("llava-next", "TokenPruneLlavaNext", save_llava_next),
    Family("llava-onevision", "TokenPruneLlavaOnevision", save_llava_onevision),
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
    *(
        family
        for module in iter_modules(native.__path__, f"{native.__name__}.")
        if module.name != __name__
        for family in getattr(import_module(module.name), "FAMILIES", ())
    ),
)
