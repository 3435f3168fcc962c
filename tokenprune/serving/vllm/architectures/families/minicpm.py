"""MiniCPM-V and -o with a resampler, and MiniCPM-V 4.6, 4.7 and MiniCPM-OCR without."""

from __future__ import annotations

from functools import partial
from typing import Any

from tokenprune.serving.vllm.architectures.architecture import Architecture


def misfit(config: Any) -> str | None:
    if getattr(config, "vision_config", None) is not None:
        return None
    return (
        "config.json has no vision_config, as in MiniCPM-V 1 and 2.0, which cannot be pruned inside vLLM. Serve it "
        "without pruning, or name a later one, such as openbmb/MiniCPM-V-4_5."
    )


resampled = partial(
    Architecture,
    home="minicpm_resampled",
    like="idefics2",
    text_part="",
    tower="idefics2_vision",
    prunes_videos=True,
    gridless=True,
)
minicpm = partial(Architecture, home="minicpm", tower="families.minicpm:TOWER", needs_pixels=True)
RECORDS = (
    resampled(
        "TokenPruneMiniCPMO", "minicpmo", replaces="MiniCPMO",
        title="MiniCPM-o 2.6 and 4.5", published=("openbmb/MiniCPM-o-2_6", "openbmb/MiniCPM-o-4_5"),
    ),
    resampled(
        "TokenPruneMiniCPMV", "minicpmv", replaces="MiniCPMV", title="MiniCPM-V 2.5, 2.6, 4.0 and 4.5",
        published=("openbmb/MiniCPM-Llama3-V-2_5", "openbmb/MiniCPM-V-2_6", "openbmb/MiniCPM-V-2_6-int4",
                   "openbmb/MiniCPM-V-4", "openbmb/MiniCPM-V-4_5"),
        names=(r"\S+/MiniCPM-Llama3-V-2_5",), other_names=(r"\S+/MiniCPM-V(-2(\.0)?)?$",),
        misfit=misfit,
    ),
    minicpm(
        "TokenPruneMiniCPMV4_6", "minicpmv4_6",
        title="MiniCPM-V 4.6, MiniCPM-V 4.7", published=("openbmb/MiniCPM-V-4.6",),
    ),
    minicpm("TokenPruneMiniCPMV4_7", "minicpmv4_7", mrope=True),
    # vLLM 0.33 has it too, but none of the transformers releases that it takes reads its config.
    # DSpark is a draft model.
    minicpm(
        "TokenPruneMiniCPMOcr", "minicpm_ocr", home="minicpm_ocr",
        title="MiniCPM-OCR", published=("openbmb/MiniCPM-OCR-1.0",), other_names=(r"\S+/MiniCPM-OCR-\S*DSpark",),
        first_release="0.34", takes_adapters=False,
    ),
)  # fmt: skip
