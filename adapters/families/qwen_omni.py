"""The thinkers of Qwen2.5-Omni and Qwen3-Omni: Qwen-VL with audio, which is never pruned. A whole model can speak only
unpruned, because its talker indexes the thinker's hidden states by the unpruned prompt's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from tokenprune.adapters.families.qwen_vl import Qwen2_5_VLAdapter, Qwen3VLAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.attention import Rotation, RowAttention, biased, project_separate
from tokenprune.adapters.towers.qwen import QWEN2_5_TOWER, windowed_separate_heads
from tokenprune.encoded import CapturePoints


def _points(block: Any) -> CapturePoints:
    return CapturePoints(block.attn, {"queries": block.attn.q, "keys": block.attn.k})


def _all_points(block: Any) -> CapturePoints:
    return CapturePoints(block.attn, {**_points(block).outputs, "values": block.attn.v})


def _attend(attention: Any, hidden: Tensor, ends: Tensor, rotation: Rotation, bias: Tensor) -> Tensor:
    captured = {"queries": attention.q(hidden), "keys": attention.k(hidden), "values": attention.v(hidden)}
    heads = biased(project_separate(attention, captured, rotation), ends, bias, attention.scaling)
    return attention.proj(heads.to(hidden.dtype))


_ATTENTION = RowAttention(_all_points, project_separate, _attend)


def read_by_the_talker(kwargs: Mapping[str, Any]) -> list[str]:
    """The arguments that only fit the unpruned sequence, if a call of a thinker asks for hidden states."""
    asked = (
        "output_hidden_states, of which the talker of a whole Qwen-Omni reads one for each token of the prompt (give a "
        'whole one generation_mode="text", for an answer without speech),'
    )
    return [asked] if kwargs.get("output_hidden_states") else []


@register_adapter("Qwen2_5OmniThinkerForConditionalGeneration", part_of="Qwen2_5OmniForConditionalGeneration.thinker")
class Qwen2_5OmniAdapter(Qwen2_5_VLAdapter):
    """For Qwen2_5OmniThinkerForConditionalGeneration, the `thinker` of a whole Qwen2.5-Omni."""

    since = (5, 24)
    continues_above_time = True

    def describe_tower(self) -> Tower:
        return replace(QWEN2_5_TOWER, capture_points=_points, heads=windowed_separate_heads, attention=_ATTENTION)

    def unprunable(self, kwargs: Mapping[str, Any]) -> list[str]:
        return [*super().unprunable(kwargs), *read_by_the_talker(kwargs)]


@register_adapter("Qwen3OmniMoeThinkerForConditionalGeneration", part_of="Qwen3OmniMoeForConditionalGeneration.thinker")
class Qwen3OmniAdapter(Qwen3VLAdapter):
    """For Qwen3OmniMoeThinkerForConditionalGeneration, the `thinker` of a whole Qwen3-Omni."""

    since = (5, 24)
    continues_above_time = True

    def unprunable(self, kwargs: Mapping[str, Any]) -> list[str]:
        return [*super().unprunable(kwargs), *read_by_the_talker(kwargs)]
