"""Qwen-Omni with sound next to pruned images, and with sound in videos, which are not pruned."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.served.engine import TOLERANCE, check_served, engine, needs_vllm, served
from helpers.served.families import FAMILIES
from helpers.served.family import FOPRU, Family
from helpers.served.marks import QWEN_IMAGE, QWEN_SOUND, QWEN_VIDEO
from helpers.served.reference import Request

OMNI = [one for one in FAMILIES if one.name in ("qwen2_5_omni", "qwen3_omni_moe")]
pytestmark = [
    needs_vllm,
    pytest.mark.slow,
    pytest.mark.parametrize(
        "family",
        [one for one in FAMILIES if "_omni" in one.name and one.name.startswith("qwen")],
        ids=lambda one: one.name,
    ),
]
LIMITS = {"limit_mm_per_prompt": {"image": 2, "video": 1, "audio": 2}}
A, B, SHORT, SOUND = (1, 140, 112), (2, 200, 90), (3, 112, 84, 4), (4, 0.7)


def test_sound_beside_images(family: Family, tmp_path: Path) -> None:
    family.save(tmp_path)
    requests = [
        Request(f"w1 {QWEN_SOUND} w2", sounds=(SOUND,)),
        Request(f"w1 {QWEN_SOUND} w2 {QWEN_IMAGE} w3", (A,), sounds=(SOUND,)),
        Request(f"{QWEN_IMAGE} w1 {QWEN_SOUND} w2 {QWEN_IMAGE} w3 {QWEN_SOUND}", (B, A), sounds=(SOUND, (5, 0.4))),
    ]
    options = {**LIMITS, "max_num_batched_tokens": 16, "max_num_seqs": 8}
    check_served(tmp_path, family.architecture, FOPRU, requests, **options)


def test_sound_in_a_video(family: Family, tmp_path: Path) -> None:
    """The tokens of both alternate. vLLM distinguishes them by a mark on their features."""
    family.save(tmp_path)
    mixed = {"options": (("use_audio_in_video", True),), "videos": (SHORT,), "sounds": (SOUND,)}
    alone = Request(f"w1 {QWEN_VIDEO} w2", **mixed)
    both = Request(f"w1 {QWEN_IMAGE} w2 {QWEN_VIDEO} w3", (A,), keep_ratio=1.0, **mixed)
    with engine(tmp_path, family.architecture, FOPRU, **LIMITS) as llm:
        found = [one for request in (alone, both) for one in served(llm, [request])]
    with engine(tmp_path, "", {}, **LIMITS, hf_overrides={}) as llm:
        native = [one for request in (alone, replace(both, keep_ratio=None)) for one in served(llm, [request])]
    for ours, theirs in zip(found, native, strict=True):
        assert len(ours.prompt_token_ids) == len(theirs.prompt_token_ids)
        assert ours.outputs[0].token_ids == theirs.outputs[0].token_ids
        first, other = (output.outputs[0].logprobs[0] for output in (ours, theirs))
        assert max(abs(first[token].logprob - other[token].logprob) for token in first) < TOLERANCE
