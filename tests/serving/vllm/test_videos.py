"""Videos are not pruned: they are answered as by vLLM without the plug-in, also beside images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.served.engine import engine, needs_vllm
from helpers.served.models import QWEN_IMAGE, save_qwen
from helpers.served.reference import draw

pytestmark = [needs_vllm, pytest.mark.slow]
VIDEO = "<|vision_start|> <|video_pad|> <|vision_end|>"
FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}


def answers(llm: Any, options: dict[str, Any]) -> list[list[int]]:
    """To a video, and to a video and an image, whose request has `options`."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    frames = np.stack([np.asarray(draw(seed, 112, 84)) for seed in range(4)])
    facts = {"fps": 2.0, "duration": 2.0, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}
    video = (frames, {**facts, "video_backend": "opencv", "do_sample_frames": False})
    prompts = [
        {"prompt": f"w1 {VIDEO} w2", "multi_modal_data": {"video": video}},
        {
            "prompt": f"w1 {VIDEO} w2 {QWEN_IMAGE} w3",
            "multi_modal_data": {"video": video, "image": draw(3, 112, 112)},
            "mm_processor_kwargs": options,
        },
    ]
    sampling = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
    return [list(one.outputs[0].token_ids) for one in llm.generate(prompts, sampling, use_tqdm=False)]


def test_videos_beside_images(tmp_path: Path) -> None:
    save_qwen(tmp_path, "qwen2_5_vl")
    options: dict[str, Any] = {"limit_mm_per_prompt": {"image": 1, "video": 1}, "max_model_len": 1024}
    with engine(tmp_path, "TokenPruneQwen2_5_VL", FOPRU, **options) as llm:
        unpruned, pruned = answers(llm, {"keep_ratio": 1.0}), answers(llm, {})
    with engine(tmp_path, "", {}, **options, hf_overrides={}) as llm:
        native = answers(llm, {})
    assert unpruned == native
    assert pruned[0] == native[0]
    assert pruned[1] != native[1]
