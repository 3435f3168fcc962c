"""A vision tower that encodes only the patches of an image or frame that pixel selection keeps: answers equal
transformers'."""

from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import TOLERANCE, check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.families import FAMILIES
from helpers.served.family import words
from helpers.served.reference import Request

from tokenprune.serving.vllm.architectures import ARCHITECTURES

pytestmark = [needs_vllm, pytest.mark.slow]
EXACT = {"strategy": "pixelprune"}
SOME = {"strategy": "pixelprune", "threshold": 0.3, "keep_ratio": 0.3}
BY_ATTENTION = {"strategy": "compose", "steps": ["pixelprune", "fopru:keep=9"]}
MERGING = {"strategy": "compose", "steps": ["pixelprune", "visionzip:keep=9"]}
#: They differ from others only in the language model.
EXPERTS = ("qwen3_vl_moe", "qwen3_5_moe", "glm4v_moe")
NAMES = [one.name for one in FAMILIES if ARCHITECTURES[one.architecture].drops_patches and one.name not in EXPERTS]
#: Towers with patches in raster order, for one image at a time or for frames that are merged into the same tokens.
RASTER = ("paddleocr_vl", "isaac", "keye", "keye_vl1_5", "kimi_k25", "kimi_k3", "kimi_k31", "kimi_vl")
CASES = [(name, EXACT) for name in NAMES]
CASES += [
    (name, one)
    for name in ("qwen2_5_vl", "qwen3_vl", "qwen3_omni_moe", "dots_ocr", "minimax_m3", "ovis2_5", *RASTER)
    for one in (SOME, BY_ATTENTION, MERGING)
]
A, B, FRAMES = (1, 224, 112), (2, 112, 224), (3, 112, 112, 4)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_answers(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """With steps that end within images, keep ratios in requests, a cached prefix and a video."""
    (family,) = (one for one in FAMILIES if one.name == name)
    family.save(tmp_path)
    image = family.image
    limits = {} if family.video is None else {"image": 2, "video": 1}
    options = {"limit_mm_per_prompt": limits, "max_num_batched_tokens": 16, "max_num_seqs": 8}
    with engine(tmp_path, family.architecture, settings, **{**options, **family.options}) as llm:
        prefix = words(llm.llm_engine.vllm_config.cache_config.block_size)
        requests = [
            Request(f"{prefix} {image} w3 w4", (A,), flat=True),
            Request(f"{prefix} {image} w3 w5", (A,), flat=True),
            Request(f"w1 w2 {image} w3 w4", (A,)),
            Request(f"w1 w2 {image} w3 w4", (A,), flat=True, keep_ratio=0.1),
            Request(f"w1 w2 {image} w3 w4", (A,), flat=True, keep_ratio=1.0),
            Request(f"{image} w5 {image} w6", (B, A), flat=True),
            Request("w9 w10 w11"),
        ]
        video = image if name == "kimi_k25" else family.video
        if settings is EXACT and video is not None:  # with other settings, the budget is per frame, here per video
            requests.append(Request(f"w1 {video} w2", videos=(FRAMES,), flat=True))
        unpruned = {"strategy": "grid", "keep_ratio": 1.0}
        answers = expected(tmp_path, settings, requests)
        answers[4:5] = expected(tmp_path, unpruned, requests[4:5])
        outputs = [one for request in requests for one in served(llm, [request])]
        assert outputs[1].num_cached_tokens > 0
        for output, answer in zip(outputs, answers, strict=True):
            check_equal(output, answer)
        llm.reset_prefix_cache()
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)
    n_flat, n_blurred, n_few = (len(answers[i].kept[0]) for i in (0, 2, 3))
    assert n_flat < n_blurred or settings is not EXACT
    assert n_few < n_flat
    (afterwards,) = expected(tmp_path, {"strategy": "grid", "keep": n_flat}, requests[:1])
    assert difference(outputs[0], afterwards) > 100 * TOLERANCE
