"""Smaller versions of images, made in the API server: answers equal those of a patched model in transformers."""

from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import TOLERANCE, check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.families import FAMILIES
from helpers.served.family import Family, words
from helpers.served.reference import Request

from tokenprune.errors import SettingError
from tokenprune.serving.vllm.architectures import ARCHITECTURES

pytestmark = [needs_vllm, pytest.mark.slow]
HALF = {"strategy": "downsample", "keep_ratio": 0.5}  # whose position IDs are compact by default
ORIGINAL = {**HALF, "position_ids": "original"}
THEN_PRUNED = {"strategy": "compose", "steps": ["downsample:keep_ratio=0.5", "fopru:keep_ratio=0.2"]}
#: They differ from others only in the language model.
EXPERTS = ("qwen3_vl_moe", "qwen3_5_moe", "glm4v_moe")
SHRINKING = [one for one in FAMILIES if ARCHITECTURES[one.architecture].shrinks and one.name not in EXPERTS]
CASES = [(family, settings) for family in SHRINKING for settings in (HALF, ORIGINAL)]
CASES += [(family, THEN_PRUNED) for family in SHRINKING if family.name in ("llava-siglip", "qwen2_5_vl", "glm4v")]
A, B, FRAMES = (1, 168, 112), (2, 112, 224), (3, 112, 84, 4)


@pytest.mark.parametrize(("family", "settings"), CASES, ids=lambda one: getattr(one, "name", None))
def test_answers(family: Family, settings: dict[str, Any], tmp_path: Path) -> None:
    """With steps that end within images, images of several sizes in one step, sizes from requests, a cached prefix and
    a video."""
    family.save(tmp_path)
    image = family.image
    limits = {"image": 2, "video": 1 if family.video else 0}
    options = {"limit_mm_per_prompt": limits, "max_num_batched_tokens": 16, "max_num_seqs": 8, **family.options}
    with engine(tmp_path, family.architecture, settings, **options) as llm:
        prefix = words(llm.llm_engine.vllm_config.cache_config.block_size - 2)
        requests = [
            Request(f"{prefix} {image} w3 w4", (A,)),
            Request(f"{prefix} {image} w3 w5", (A,)),
            Request(f"w1 w2 {image} w3 w4", (B,), keep_ratio=0.25),
            Request(f"w1 w2 {image} w3 w4", (A,), keep_ratio=1.0),
            Request(f"{image} w5 {image} w6", (B, A)),
            Request("w9 w10 w11"),
        ]
        if family.video is not None and settings is not THEN_PRUNED:  # vLLM prunes each frame, transformers the whole
            requests.append(Request(f"w1 {family.video} w2", videos=(FRAMES,)))
        answers = expected(tmp_path, settings, [*requests[:3], *requests[4:]])
        answers[3:3] = expected(tmp_path, {"strategy": "grid", "keep_ratio": 1.0}, requests[3:4])
        outputs = [one for request in requests for one in served(llm, [request])]
        assert outputs[1].num_cached_tokens > 0
        for output, answer in zip(outputs, answers, strict=True):
            check_equal(output, answer)
        llm.reset_prefix_cache()
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)
    other = "original" if settings is HALF else "compact"
    (moved,) = expected(tmp_path, settings, requests[:1], other)
    assert difference(outputs[0], moved) > 100 * TOLERANCE


def test_requests_that_cannot_be_shrunk(tmp_path: Path) -> None:
    """The engine answers the next ones."""
    (family,) = (one for one in FAMILIES if one.name == "qwen3_vl")
    family.save(tmp_path)
    fitting = Request(f"w1 {family.image} w2", (A,))
    with engine(tmp_path, family.architecture, HALF) as llm:
        with pytest.raises(SettingError, match=r"its shorter side would be less than half a token\. Keep more"):
            served(llm, [Request(fitting.text, ((1, 1600, 32),), keep_ratio=0.05)])
        for ratio in (0.0, -1.0, 1.5):
            with pytest.raises(SettingError, match="is not a fraction in"):
                served(llm, [Request(fitting.text, (A,), keep_ratio=ratio)])
        (output,) = served(llm, [fitting])
    (answer,) = expected(tmp_path, HALF, [fitting])
    check_equal(output, answer)
