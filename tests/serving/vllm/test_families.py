"""Every family in vLLM answers as in transformers with tokenprune."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import TOLERANCE, check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.models import (
    IMAGE,
    INTERN_IMAGE,
    QWEN_IMAGE,
    save_internvl,
    save_llava,
    save_llava_next,
    save_llava_onevision,
    save_qwen,
)
from helpers.served.reference import Request

pytestmark = [needs_vllm, pytest.mark.slow]

FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}
LONG = " ".join(f"w{i % 70}" for i in range(40))


@dataclass(frozen=True)
class Served:
    """A family: how a tiny model is saved, and how an image is written in a prompt."""

    name: str
    architecture: str
    save: Callable[[Path], None]
    image: str = IMAGE
    several: bool = True

    def requests(self) -> list[Request]:
        """Prompts with images of several shapes, with requests of their own for a keep ratio, and without images."""
        a, b, c = (1, 140, 112), (2, 200, 90), (3, 112, 224)
        i = self.image
        found = [
            Request(f"w1 w2 {i} w3 w4", (a,)),
            Request(f"w1 w2 {i} w3 w4", (b,)),
            Request(f"{LONG} {i} w8", (c,)),
            Request(f"w1 w2 {i} w3 w4", (a,), keep_ratio=0.5),
            Request(f"w1 w2 {i} w3 w4", (b,), keep_ratio=1.0),
            Request("w9 w10 w11"),
        ]
        if self.several:
            found += [
                Request(f"{i} w5 {i} w6 w7", (a, c)),
                Request(f"{i} w5 {i} w6 w7", (c, a)),
                Request(f"{i} w5 {i} w6 {i} w7", (b, b, a)),
            ]
        return found


FAMILIES = [
    Served("llava-clip", "TokenPruneLlava", save_llava),
    Served("llava-siglip", "TokenPruneLlava", partial(save_llava, kind="siglip")),
    Served("llava-next", "TokenPruneLlavaNext", save_llava_next),
    # transformers cuts no tiles if a prompt has several images, and vLLM does.
    Served("llava-onevision", "TokenPruneLlavaOnevision", save_llava_onevision, several=False),
    Served("internvl", "TokenPruneInternVL", save_internvl, INTERN_IMAGE),
    Served("qwen2_vl", "TokenPruneQwen2VL", partial(save_qwen, kind="qwen2_vl"), QWEN_IMAGE),
    Served("qwen2_5_vl", "TokenPruneQwen2_5_VL", partial(save_qwen, kind="qwen2_5_vl"), QWEN_IMAGE),
    Served("qwen3_vl", "TokenPruneQwen3VL", partial(save_qwen, kind="qwen3_vl"), QWEN_IMAGE),
    Served("qwen3_vl_moe", "TokenPruneQwen3VLMoe", partial(save_qwen, kind="qwen3_vl_moe"), QWEN_IMAGE),
]


SMOKE = ("llava-clip",)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(family, id=family.name, marks=[pytest.mark.smoke] if family.name in SMOKE else [])
        for family in FAMILIES
    ],
)
def family(request: pytest.FixtureRequest) -> Served:
    return request.param


@pytest.fixture(scope="module")
def model(family: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(family.name)
    family.save(folder)
    return folder


@pytest.fixture(scope="module")
def llm(family: Served, model: Path) -> Iterator[Any]:
    with engine(model, family.architecture, FOPRU) as llm:
        yield llm


def test_one_by_one_and_together(family: Served, model: Path, llm: Any) -> None:
    requests = family.requests()
    answers = expected(model, FOPRU, requests)
    for request, answer in zip(requests, answers, strict=True):
        (output,) = served(llm, [request])
        check_equal(output, answer)
    for output, answer in zip(served(llm, requests), answers, strict=True):
        check_equal(output, answer)


def test_other_position_ids_give_another_answer(family: Served, model: Path, llm: Any) -> None:
    """A comparison that misses what is wrong with position IDs would be worth nothing."""
    requests = [request for request in family.requests() if request.images and request.keep_ratio != 1]
    for output, answer in zip(served(llm, requests), expected(model, FOPRU, requests, "compact"), strict=True):
        assert difference(output, answer) > 100 * TOLERANCE
