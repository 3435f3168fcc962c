"""DeepSeek-OCR, DeepSeek-OCR 2 and Unlimited-OCR, whose configs name two encoders, the second of which is read."""

from __future__ import annotations

from copy import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

from tokenprune.serving.vllm.architectures.architecture import Architecture

#: Of the second encoder that vLLM builds for DeepSeek-OCR 2: published configs say only how wide it is.
QWEN2_LAYERS = 24


def second_encoder(config: Any) -> Any:
    """The config with the second encoder, and the type that vLLM gives it."""
    named = copy(config)
    clip = config.vision_config.width.get("clip-l-14-224")
    if clip is None:
        named.model_type, named.vision_config = "deepseek_ocr2", SimpleNamespace(num_hidden_layers=QWEN2_LAYERS)
    else:
        named.model_type, named.vision_config = "deepseek_ocr", SimpleNamespace(**clip)
    return named


deepseek = partial(Architecture, text_part="language_config", described=second_encoder, needs_pixels=True)
RECORDS = (
    deepseek(
        "TokenPruneDeepseekOCR", "deepseek_vl_v2", "deepseek_ocr", "DeepseekOCRForCausalLM",
        title="DeepSeek-OCR, DeepSeek-OCR 2", published=("deepseek-ai/DeepSeek-OCR",),
        names=(r"\S+/DeepSeek-OCR",), other_names=(r"\S+/deepseek-vl2",),
        like="unlimited_ocr", tower="families.unlimited_ocr:TOWER", tower_type="deepseek_ocr",
    ),
    deepseek(
        "TokenPruneDeepseekOCR2", "deepseek_vl_v2", "deepseek_ocr2", "DeepseekOCR2ForCausalLM", must_be_named=True,
        published=("deepseek-ai/DeepSeek-OCR-2",), names=(r"\S+/DeepSeek-OCR-2",),
        converted="deepseek_ocr2", tower="families.deepseek_ocr2:TOWER", tower_type="deepseek_ocr2", gridless=True,
    ),
    deepseek(
        "TokenPruneUnlimitedOCR", "unlimited-ocr", "deepseek_ocr", "UnlimitedOCRForCausalLM",
        title="Unlimited-OCR", published=("baidu/Unlimited-OCR",), names=(r"\S+/Unlimited-OCR",),
        converted="unlimited_ocr", tower="families.unlimited_ocr:TOWER",
    ),
)  # fmt: skip
