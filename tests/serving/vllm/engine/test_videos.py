"""Each frame of a video is pruned like an image: vLLM answers like transformers with a budget per frame. In other
families videos are not pruned, not even next to pruned images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.served.converted.internvl import CHAT_IMAGE, CHAT_OPTIONS, save_internvl_chat
from helpers.served.converted.nemotron import NANO_VL, UNCACHED, VIDEO, save_nemotron
from helpers.served.engine import TOLERANCE, check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.families import FAMILIES
from helpers.served.family import FOPRU, OWN_ROTATION, Family, words
from helpers.served.models import IMAGE, QWEN_IMAGE, QWEN_VIDEO, save_llava_onevision
from helpers.served.native.gemma import GEMMA4_IMAGE, save_gemma4
from helpers.served.native.llava_next_video import NEXT_VIDEO, save_llava_next_video
from helpers.served.native.minicpm import MINICPM_IMAGE, MINICPM_VIDEO, save_minicpm
from helpers.served.native.minimax import MINIMAX_IMAGE, MINIMAX_VIDEO, save_minimax_m3
from helpers.served.native.omni import save_omni
from helpers.served.native.packed import KIMI_IMAGE, save_kimi
from helpers.served.reference import Request

from tokenprune.serving.vllm.architectures import ARCHITECTURES

pytestmark = [needs_vllm, pytest.mark.slow]
LIMITS: dict[str, Any] = {"limit_mm_per_prompt": {"image": 1, "video": 1}}
OF_VIDEOS = [family for family in FAMILIES if family.video is not None]
SHORT, LONG = (1, 112, 84, 4), (7, 84, 112, 6)


@pytest.mark.parametrize("family", OF_VIDEOS, ids=[family.name for family in OF_VIDEOS])
def test_frames_are_pruned_as_images(family: Family, tmp_path: Path) -> None:
    """With steps that end within frames, and a prefix that ends in the middle of a video."""
    family.save(tmp_path)
    image, video = family.image, family.video
    by_frame = {**FOPRU, "budget_per": "tile"}
    several = {"image": 1, "video": 2 if family.mixes else 1}
    options = {**family.options, "limit_mm_per_prompt": several, "max_num_batched_tokens": 16, "max_num_seqs": 8}
    with engine(tmp_path, family.architecture, FOPRU, **options) as llm:
        prefix = words(llm.llm_engine.vllm_config.cache_config.block_size - 8)
        requests = [
            Request(f"{prefix} {video} w2", videos=(SHORT,)),
            Request(f"{prefix} {video} w3", videos=(SHORT,)),
            Request(f"w1 {video} w2", videos=(LONG,), keep_ratio=0.5),
            Request(f"w1 {video} w2", videos=(SHORT,), keep_ratio=1.0),
            Request(f"w1 {image} w2", ((3, 112, 112),)),
        ]
        if family.mixes:
            requests.append(Request(f"{words(9)} {video} w2 {video} w3", videos=(LONG, SHORT)))
            requests.append(Request(f"w1 {video} w2 {image} w3", ((3, 112, 112),), videos=(SHORT,)))
        answers = expected(tmp_path, by_frame, requests)
        outputs = [one for request in requests for one in served(llm, [request])]
        assert outputs[1].num_cached_tokens > 0
        for output, answer in zip(outputs, answers, strict=True):
            check_equal(output, answer)
        llm.reset_prefix_cache()
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)
    (compact,) = expected(tmp_path, by_frame, requests[:1], "compact")
    assert (difference(outputs[0], compact) > 100 * TOLERANCE) == ARCHITECTURES[family.architecture].reads_position_ids


@pytest.mark.parametrize(
    ("save", "architecture", "video", "image", "options"),
    [
        (save_llava_onevision, "TokenPruneLlavaOnevision", "<video>", "<image>", {}),
        (save_internvl_chat, "TokenPruneInternVLChat", "<video>", CHAT_IMAGE, CHAT_OPTIONS),
        (save_gemma4, "TokenPruneGemma4", "<|video|>", GEMMA4_IMAGE, {}),
        (save_minicpm, "TokenPruneMiniCPMV4_6", MINICPM_VIDEO, MINICPM_IMAGE, {}),
        (partial(save_minicpm, name="MiniCPMV4_7"), "TokenPruneMiniCPMV4_7", MINICPM_VIDEO, MINICPM_IMAGE, {}),
        (save_minimax_m3, "TokenPruneMiniMaxM3", MINIMAX_VIDEO, MINIMAX_IMAGE, {}),
        (partial(save_omni, kind="qwen2_5_omni"), "TokenPruneQwen2_5Omni", QWEN_VIDEO, QWEN_IMAGE, {}),
        (partial(save_omni, kind="qwen3_omni_moe"), "TokenPruneQwen3Omni", QWEN_VIDEO, QWEN_IMAGE, {}),
        (partial(save_nemotron, name=NANO_VL), "TokenPruneNemotronNanoVL", VIDEO, IMAGE, UNCACHED),
        (save_nemotron, "TokenPruneNemotronNanoOmni", VIDEO, IMAGE, UNCACHED),
        (
            partial(save_nemotron, name=NANO_VL),
            "TokenPruneNemotronNanoVL",
            VIDEO,
            IMAGE,
            {**UNCACHED, "video_pruning_rate": 0.5},
        ),
    ],
    ids=[
        "llava-onevision",
        "internvl_chat",
        "gemma4",
        "minicpmv4_6",
        "minicpmv4_7",
        "minimax_m3",
        "qwen2_5_omni",
        "qwen3_omni_moe",
        "nemotron_nano_vl",
        "nemotron_omni",
        "nemotron_nano_vl, which vLLM prunes",
    ],
)
def test_videos_that_are_not_pruned(
    save: Any, architecture: str, video: str, image: str, options: dict[str, Any], tmp_path: Path
) -> None:
    save(tmp_path)
    alone = Request(f"w1 {video} w2", videos=((1, 56, 56, 4),))
    both = Request(f"w1 {video} w2 {image} w3", ((3, 100, 60),), videos=alone.videos)
    unpruned = replace(both, keep_ratio=1.0)
    with engine(tmp_path, architecture, FOPRU, **LIMITS, **options) as llm:
        found = served(llm, [alone, unpruned, both])
    with engine(tmp_path, "", {}, **LIMITS, **options, hf_overrides={}) as llm:
        native = [tokens(one) for one in served(llm, [alone, both])]
    assert [tokens(one) for one in found[:2]] == native
    assert len(found[2].prompt_token_ids) < len(found[1].prompt_token_ids)


def test_a_family_that_takes_no_images(tmp_path: Path) -> None:
    """LLaVA-NeXT-Video in vLLM: prompts have exactly one video."""
    save_llava_next_video(tmp_path)
    options = {"limit_mm_per_prompt": {"video": 1}, "max_num_batched_tokens": 16, "max_num_seqs": 8}
    requests = [
        Request(f"{words(28)} {NEXT_VIDEO} w2", videos=(SHORT,)),
        Request(f"{words(28)} {NEXT_VIDEO} w3", videos=(SHORT,)),
        Request(f"w1 {NEXT_VIDEO} w2", videos=(LONG,), keep_ratio=0.5),
        Request(f"w1 {NEXT_VIDEO} w2", videos=(SHORT,), keep_ratio=1.0),
        Request("w9 w10 w11"),
    ]
    answers = expected(tmp_path, {**FOPRU, "budget_per": "tile"}, requests)
    with engine(tmp_path, "TokenPruneLlavaNextVideo", FOPRU, **options) as llm:
        outputs = [one for request in requests for one in served(llm, [request])]
        llm.reset_prefix_cache()
        outputs += served(llm, requests)
    assert outputs[1].num_cached_tokens > 0
    for output, answer in zip(outputs, answers * 2, strict=True):
        check_equal(output, answer)
    (compact,) = expected(tmp_path, {**FOPRU, "budget_per": "tile"}, requests[:1], "compact")
    assert difference(outputs[0], compact) > 100 * TOLERANCE


def tokens(output: Any) -> list[int]:
    return list(output.outputs[0].token_ids)


def test_a_chunk_of_frames_is_pruned_as_an_image(tmp_path: Path) -> None:
    """In Kimi, whose tower averages the frames."""
    save_kimi(tmp_path)
    requests = [
        Request(f"w1 {KIMI_IMAGE} w2", videos=(SHORT,)),
        Request(f"w1 {KIMI_IMAGE} w2 {KIMI_IMAGE} w3", ((3, 112, 112),), videos=(SHORT,), keep_ratio=0.5),
    ]
    answers = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, "TokenPruneKimiK25", FOPRU, limit_mm_per_prompt={}, **OWN_ROTATION) as llm:
        outputs = served(llm, requests)
    for output, answer in zip(outputs, answers, strict=True):
        check_equal(output, answer)
    (first_frame,) = expected(tmp_path, FOPRU, [Request(f"w1 {KIMI_IMAGE} w2", (SHORT[:3],))])
    assert difference(outputs[0], first_frame) > 100 * TOLERANCE
