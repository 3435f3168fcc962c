"""Every family in vLLM gives the same answers as in transformers with tokenprune, however vLLM splits, caches and
preempts requests."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import TOLERANCE, check_equal, difference, engine, expected, needs_vllm, preemptions, served
from helpers.served.families import FAMILIES
from helpers.served.family import Family, words
from helpers.served.reference import Request

from tokenprune.serving.vllm.architectures import ARCHITECTURES

pytestmark = [needs_vllm, pytest.mark.slow]
SMOKE = ("llava-clip",)
#: The same models, whose images are shrunk.
SHRINKING = [
    replace(one, name=f"{one.name}, shrunk", settings={"strategy": "downsample", "keep_ratio": 0.5})
    for one in FAMILIES
    if one.name in ("llava-clip", "qwen3_vl", "glm4v")
]
OPTIONS = {"max_num_seqs": 8, "max_model_len": 256}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(family, id=family.name, marks=[pytest.mark.smoke] if family.name in SMOKE else [])
        for family in [*FAMILIES, *SHRINKING]
    ],
)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def model(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(family.name)
    family.save(folder)
    return folder


@pytest.fixture(scope="module")
def llm(family: Family, model: Path) -> Iterator[Any]:
    own = {"max_num_batched_tokens": family.n_step, "num_gpu_blocks_override": family.n_blocks}
    with engine(model, family.architecture, family.settings, **OPTIONS, **own, **family.options) as llm:
        yield llm


def checked(family: Family, model: Path, llm: Any, requests: list[Request]) -> list[Any]:
    """Return vLLM's outputs for requests that are sent one by one, after comparing them."""
    outputs = []
    for request, answer in zip(requests, expected(model, family.settings, requests), strict=True):
        (output,) = served(llm, [request])
        check_equal(output, answer)
        outputs.append(output)
    return outputs


def test_one_by_one_and_together(family: Family, model: Path, llm: Any) -> None:
    requests = family.requests()
    checked(family, model, llm, requests)
    llm.reset_prefix_cache()
    for output, answer in zip(served(llm, requests), expected(model, family.settings, requests), strict=True):
        check_equal(output, answer)


def test_other_position_ids_give_another_answer(family: Family, model: Path, llm: Any) -> None:
    """A comparison that does not notice wrong position IDs would be worthless. A language model without position IDs
    answers the same; test_on_gpus.py tests it."""
    requests = [request for request in family.requests() if request.images and request.keep_ratio != 1]
    answers = expected(model, family.settings, requests, "compact")
    for output, answer in zip(served(llm, requests), answers, strict=True):
        assert (difference(output, answer) > 100 * TOLERANCE) == ARCHITECTURES[family.architecture].reads_position_ids


@pytest.mark.parametrize("n_before", range(7, 16))
def test_steps_of_16_tokens_end_at_every_place_of_an_image(
    family: Family, model: Path, llm: Any, n_before: int
) -> None:
    request = Request(f"{words(n_before, n_before)} {family.image} w3", ((10 + n_before, 200, 90),))
    checked(family, model, llm, [request])


def block_size(llm: Any) -> int:
    """Return the tokens per block of the KV cache: more than requested if layers of different kinds share it."""
    groups = llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_config.kv_cache_groups
    return math.lcm(*(group.kv_cache_spec.block_size for group in groups))


@pytest.mark.parametrize("where", ["before", "within", "after", "another image"])
def test_prefix_hits(family: Family, model: Path, llm: Any, where: str) -> None:
    """The cached part of a prompt ends before its image, within it or after it, and never belongs to another image."""
    same, other = (100, 200, 90), (101, 200, 90)
    i, block, n = family.image, block_size(llm), 3 + family.n_more
    first, second = {
        "before": (f"{words(block, 5)} {i} w1", f"{words(block, 5)} {i} w2"),
        "within": (f"{words(block - n, 15)} {i} w1", f"{words(block - n, 15)} {i} w2"),
        "after": (f"w25 {i} {words(2 * block)} w1", f"w25 {i} {words(2 * block)} w2"),
        "another image": (f"w35 {i} {words(2 * block)} w1", f"w35 {i} {words(2 * block)} w1"),
    }[where]
    image = other if where in ("before", "another image") else same
    outputs = checked(family, model, llm, [Request(first, (same,)), Request(second, (image,))])
    n_cached, visual = outputs[1].num_cached_tokens, family.visual(outputs[1], llm.get_tokenizer())
    assert outputs[0].num_cached_tokens == 0
    if where == "another image" or not family.caches:
        assert n_cached == 0
    elif where == "before":
        assert n_cached == block <= visual.start
    elif where == "within":
        assert visual.start < n_cached < visual.stop
    else:
        assert n_cached >= visual.stop


def test_preemption(family: Family, model: Path, llm: Any) -> None:
    """Requests that together exceed the KV cache are preempted, and start again with their own position IDs."""
    requests = [
        Request(f"{words(20 + n)} {family.image} {words(8)}", ((20 + n, 140, 112),), n_new=40) for n in range(6)
    ]
    before = preemptions(llm)
    outputs = served(llm, requests)
    assert preemptions(llm) > before
    for output, answer in zip(outputs, expected(model, family.settings, requests), strict=True):
        check_equal(output, answer)
