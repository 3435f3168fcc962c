"""Qianfan-OCR: InternVL's tiles with another tower."""

from __future__ import annotations

from tokenprune.adapters.families.internvl import InternVLAdapter
from tokenprune.adapters.registry import register_adapter


@register_adapter("QianfanOCRForConditionalGeneration")
class QianfanOCRAdapter(InternVLAdapter):
    """For QianfanOCRForConditionalGeneration. A run of placeholder tokens is an image, with all its tiles."""
