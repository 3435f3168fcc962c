"""Mistral 3 in two formats, which serve Pixtral and Mistral Large 3 too, and LightOn OCR."""

from functools import partial

from tokenprune.serving.vllm.architectures.architecture import Architecture

mistral = partial(Architecture, needs_pixels=True)
RECORDS = (
    mistral(
        "TokenPruneMistral3", "mistral3", "mistral3", title="Mistral 3, in transformers' format",
        published=("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistralai/Ministral-3-8B-Instruct-2512"),
        names=(r"\S+/(Mistral-Small-3\.[12]|Ministral-3|Devstral-Small-2)-",), has_markers=True,
    ),
    mistral(
        "TokenPrunePixtral", "pixtral", "pixtral",
        title="Mistral 3, Mistral Large 3 and Pixtral, in Mistral's own format",
        published=("mistralai/Pixtral-12B-2409", "mistral-community/pixtral-12b-240910"),
        like="mistral3", text_part="text_config", tower="pixtral", has_markers=True,
    ),
    mistral(
        "TokenPruneLightOnOCR", "mistral3", "mistral3:PrunedLightOnOcr", must_be_named=True,
        title="LightOn OCR", published=("lightonai/LightOnOCR-2-1B",), names=(r"\S+/LightOnOCR-[12]",),
        converted="lighton_ocr",
    ),
)  # fmt: skip
