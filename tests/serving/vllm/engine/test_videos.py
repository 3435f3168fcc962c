"""Each frame of a video is pruned like an image: vLLM answers like transformers with a budget per frame. In other
families videos are not pruned, not even next to pruned images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import TOLERANCE, check_equal, difference, engine, expected, needs_vllm, preemptions, served
from helpers.served.families import FAMILIES, NATIVE_FAMILIES
from helpers.served.family import FOPRU, OWN_ROTATION, Family, words
from helpers.served.marks import KIMI_IMAGE, MINICPM_VIDEO, MINIMAX_VIDEO, QWEN_VIDEO
from helpers.served.reference import Request
from helpers.served.stored import save

from tokenprune.serving.vllm.architectures import ARCHITECTURES

pytestmark = [needs_vllm, pytest.mark.slow]
LIMITS: dict[str, Any] = {"limit_mm_per_prompt": {"image": 1, "video": 1}}
#: Options for a Nemotron on a CPU whose steps exceed a block of the KV cache: vLLM's kernel for state-space layers does
#: not return the state at the end of a block.
UNCACHED = {"enable_prefix_caching": False}
#: vLLM's own pruning of videos.
EVS = {"video_pruning_rate": 0.5}
#: Families whose videos are not pruned, and how they are written.
UNPRUNED = {
    "llava-onevision": "<video>",
    "internvl_chat": "<video>",
    "gemma4": "<|video|>",
    "minicpmv4_6": MINICPM_VIDEO,
    "minicpmv4_7": MINICPM_VIDEO,
    "minimax_m3": MINIMAX_VIDEO,
    "qwen2_5_omni": QWEN_VIDEO,
    "qwen3_omni_moe": QWEN_VIDEO,
    "nemotron_nano_vl": "<video>",
    "nemotron_omni": "<video>",
}
OF_VIDEOS = [family for family in FAMILIES if family.video is not None]
#: Those whose frames can be pruned together, as far as transformers has them.
JOINED = [
    family for family in OF_VIDEOS if ARCHITECTURES[family.architecture].joins_frames and family in NATIVE_FAMILIES
]
EVS_HALF = {"strategy": "evs", "keep_ratio": 0.5}
FASTVID = {"strategy": "fastvid", "keep_ratio": 0.5}
WHOLE = {**FOPRU, "whole_videos": True}
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


@pytest.mark.parametrize("family", JOINED, ids=[family.name for family in JOINED])
@pytest.mark.parametrize("settings", [EVS_HALF, FASTVID, WHOLE], ids=["evs", "fastvid", "fopru"])
def test_frames_are_pruned_together(family: Family, settings: dict[str, Any], tmp_path: Path) -> None:
    """With steps that end within the video, a prefix that ends in it, and images, which video strategies leave
    whole."""
    family.save(tmp_path)
    image, video = family.image, family.video
    options = {**family.options, "limit_mm_per_prompt": {"image": 1, "video": 1}}
    options |= {"max_num_batched_tokens": 16, "max_num_seqs": 8}
    with engine(tmp_path, family.architecture, settings, **options) as llm:
        prefix = words(llm.llm_engine.vllm_config.cache_config.block_size - 8)
        requests = [
            Request(f"{prefix} {video} w2", videos=(LONG,)),
            Request(f"{prefix} {video} w3", videos=(LONG,)),
            Request(f"w1 {video} w2", videos=(LONG,), keep_ratio=0.25),
            Request(f"w1 {video} w2", videos=(SHORT,), keep_ratio=1.0),
        ]
        answers = expected(tmp_path, FOPRU if settings is WHOLE else settings, requests)
        requests.append(Request(f"w1 {image} w2", ((3, 100, 60),)))
        left_whole = replace(requests[-1], keep_ratio=None if settings is WHOLE else 1.0)
        answers += expected(tmp_path, FOPRU, [left_whole])
        alone = [one for request in requests for one in served(llm, [request])]
        assert alone[1].num_cached_tokens > 0
        llm.reset_prefix_cache()
        for output, answer in zip([*alone, *served(llm, requests)], answers * 2, strict=True):
            check_equal(output, answer)


OF_QWEN = pytest.mark.parametrize(
    "family", [pytest.param(one, id=one.name) for one in JOINED if one.name in ("qwen2_5_vl", "qwen3_vl")]
)


@OF_QWEN
def test_an_image_and_a_video_with_their_own_ratios(family: Family, tmp_path: Path) -> None:
    """The reference has one number of visual tokens for both."""
    family.save(tmp_path)
    together = Request(f"w1 {family.image} w2 {family.video} w3", ((3, 112, 112),), videos=(SHORT,))
    options = {**LIMITS, "max_num_batched_tokens": 16, "max_num_seqs": 8}
    with engine(tmp_path, family.architecture, WHOLE, **options) as llm:
        tokenizer = llm.get_tokenizer()
        (whole,) = served(llm, [replace(together, keep_ratio=1.0)])
        n_image, n_video = (
            whole.prompt_token_ids.count(tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>"))
            for kind in ("image", "video")
        )
        n_kept = n_image // 2
        assert n_image != n_video
        (answer,) = expected(tmp_path, {"strategy": "fopru", "keep": n_kept}, [together])
        own = (("keep_ratio", n_kept / n_image), ("video_keep_ratio", n_kept / n_video))
        output, again = (served(llm, [replace(together, options=own)])[0] for _ in range(2))
        check_equal(output, answer)
        check_equal(again, answer)
        (as_images,) = served(llm, [replace(together, keep_ratio=n_kept / n_image)])
        assert len(as_images.prompt_token_ids) > len(output.prompt_token_ids)


def test_videos_of_256_frames_are_preempted(tmp_path: Path) -> None:
    """With the time before every second frame, in chunks. At this length, the processor leaves two frames one visual
    token, of which FoPru's scores are equal."""
    save("qwen3_vl", tmp_path)
    requests = [
        Request(f"{words(9 + n)} {QWEN_VIDEO} w2", n_new=40, videos=((n, 56, 56, 256),), keep_ratio=0.1)
        for n in range(4)
    ]
    options = {**LIMITS, "max_num_batched_tokens": 640, "max_num_seqs": 8, "max_model_len": 1024}
    with engine(tmp_path, "TokenPruneQwen3VL", EVS_HALF, num_gpu_blocks_override=52, **options) as llm:
        before = preemptions(llm)
        outputs = served(llm, requests)
        assert preemptions(llm) > before
    for output, answer in zip(outputs, expected(tmp_path, EVS_HALF, requests), strict=True):
        check_equal(output, answer)


@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in UNPRUNED), ("nemotron_nano_vl", EVS)])
def test_videos_that_are_not_pruned(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    """Except by vLLM itself."""
    family = next(one for one in FAMILIES if one.name == name)
    family.save(tmp_path)
    architecture, options = family.architecture, {**family.options, **more}
    if name.startswith("nemotron"):
        options |= UNCACHED
    alone = Request(f"w1 {UNPRUNED[name]} w2", videos=((1, 56, 56, 4),))
    both = Request(f"w1 {UNPRUNED[name]} w2 {family.image} w3", ((3, 100, 60),), videos=alone.videos)
    unpruned = replace(both, keep_ratio=1.0)
    with engine(tmp_path, architecture, FOPRU, **LIMITS, **options) as llm:
        found = served(llm, [alone, unpruned, both])
    with engine(tmp_path, "", {}, **LIMITS, **options, hf_overrides={}) as llm:
        native = [tokens(one) for one in served(llm, [alone, both])]
    assert [tokens(one) for one in found[:2]] == native
    assert len(found[2].prompt_token_ids) < len(found[1].prompt_token_ids)


@pytest.mark.parametrize(
    ("settings", "own"), [(FOPRU, {**FOPRU, "budget_per": "tile"}), (WHOLE, FOPRU), (EVS_HALF, EVS_HALF)]
)
def test_a_family_that_takes_no_images(settings: dict[str, Any], own: dict[str, Any], tmp_path: Path) -> None:
    """LLaVA-NeXT-Video in vLLM: prompts have exactly one video."""
    save("llava_next_video", tmp_path)
    options = {"limit_mm_per_prompt": {"video": 1}, "max_num_batched_tokens": 16, "max_num_seqs": 8}
    video = "<video>"
    requests = [
        Request(f"{words(28)} {video} w2", videos=(SHORT,)),
        Request(f"{words(28)} {video} w3", videos=(SHORT,)),
        Request(f"w1 {video} w2", videos=(LONG,), keep_ratio=0.5),
        Request(f"w1 {video} w2", videos=(SHORT,), keep_ratio=1.0),
        Request("w9 w10 w11"),
    ]
    answers = expected(tmp_path, own, requests)
    with engine(tmp_path, "TokenPruneLlavaNextVideo", settings, **options) as llm:
        outputs = [one for request in requests for one in served(llm, [request])]
        llm.reset_prefix_cache()
        outputs += served(llm, requests)
    assert outputs[1].num_cached_tokens > 0
    for output, answer in zip(outputs, answers * 2, strict=True):
        check_equal(output, answer)
    (compact,) = expected(tmp_path, own, requests[:1], "compact")
    assert difference(outputs[0], compact) > 100 * TOLERANCE


def tokens(output: Any) -> list[int]:
    return list(output.outputs[0].token_ids)


def test_a_chunk_of_frames_is_pruned_as_an_image(tmp_path: Path) -> None:
    """In Kimi, whose tower averages the frames."""
    save("kimi_k25", tmp_path)
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
