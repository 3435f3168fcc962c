"""Granite 4 Vision, whose processor pads the images of a prompt to the number of tiles of the largest one."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU
from helpers.served.native.granite import save_granite4_vision
from helpers.served.reference import Request

pytestmark = [needs_vllm, pytest.mark.slow]
#: Sizes of images with three and with five tiles.
WIDE, SQUARE = (1, 140, 112), (2, 224, 224)


def test_images_of_different_tiles(tmp_path: Path) -> None:
    save_granite4_vision(tmp_path)
    requests = [
        Request("w1 <image> w2 <image> w3", (WIDE, SQUARE)),
        Request("w1 <image> w2 <image> w3", (SQUARE, WIDE)),
        Request("w4 <image> w5", ((3, 140, 112),)),
    ]
    answers = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, "TokenPruneGranite4Vision", FOPRU) as llm:
        for request, answer in zip(requests, answers, strict=True):
            (output,) = served(llm, [request])
            check_equal(output, answer)
        llm.reset_prefix_cache()
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)
