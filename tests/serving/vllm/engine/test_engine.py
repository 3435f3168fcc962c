"""What an engine records and counts, and its errors for impossible requests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.reference import Request, draw

from tokenprune.errors import SettingError
from tokenprune.serving.vllm.settings import Settings

pytestmark = [needs_vllm, pytest.mark.slow]
FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}
A, B = (1, 100, 100), (2, 150, 80)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {**FOPRU, "record": str(tmp_path_factory.mktemp("record") / "new" / "kept.jsonl")}


@pytest.fixture(scope="module")
def llm(llava: Path, settings: dict[str, Any]) -> Iterator[Any]:
    with engine(llava, "TokenPruneLlava", settings, max_model_len=128, limit_mm_per_prompt={"image": 16}) as llm:
        yield llm


def lines(settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(settings["record"]).read_text().splitlines()]


def counted(name: str) -> float:
    from prometheus_client import REGISTRY  # pyright: ignore[reportMissingImports]

    value = REGISTRY.get_sample_value(f"tokenprune_{name}_total")
    assert value is not None
    return value


def test_kept_indices_are_recorded(llava: Path, settings: dict[str, Any], llm: Any) -> None:
    requests = [Request("w1 <image> w2 <image> w3", (A, B)), Request("w4 <image> w5", (A,), keep_ratio=0.5)]
    both, half = expected(llava, FOPRU, requests)
    before = len(lines(settings))
    served(llm, requests)
    served(llm, requests)  # cached images are not encoded again
    found = lines(settings)[before:]
    assert [line["kept"] for line in found] == [*both.kept, *half.kept]
    assert all(line["n_visual"] == 36 for line in found)
    digest = Settings.read(settings).digest
    assert len({line["image"] for line in found}) == 3
    assert all(line["image"].endswith(f"-{digest}") for line in found)


def test_an_image_is_recorded_by_the_name_that_its_request_gives_it(settings: dict[str, Any], llm: Any) -> None:
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    prompt = {
        "prompt": "w1 <image> w2",
        "multi_modal_data": {"image": [draw(33, 90, 90)]},
        "multi_modal_uuids": {"image": ["the cat"]},
    }
    llm.generate([prompt], SamplingParams(max_tokens=1), use_tqdm=False)
    assert lines(settings)[-1]["image"].startswith("the cat")


def test_counters(llm: Any) -> None:
    names = ("visual_tokens", "kept_visual_tokens", "selected_images", "selection_seconds")
    before = [counted(name) for name in names]
    request = Request("w1 <image> w2 <image> w3", ((41, 90, 90), (42, 90, 90)))
    served(llm, [request])
    served(llm, [request])
    seen, kept, selected, seconds = (counted(name) - old for name, old in zip(names, before, strict=True))
    assert (seen, kept, selected) == (4 * 36, 4 * 9, 2)  # the second time, both images are cached
    assert 0 < seconds < 5


@pytest.mark.usefixtures("unchecked")
def test_keep_ratios_that_cannot_be(llava: Path, llm: Any) -> None:
    """The request fails with a clear message, and the engine answers the next one."""
    for ratio in (0, 1.5, "half"):
        with pytest.raises(SettingError, match=f"keep_ratio={ratio!r} is not a fraction"):
            served(llm, [Request("w1 <image> w2", (A,), keep_ratio=ratio)])  # pyright: ignore[reportArgumentType]
    images = tuple((seed, 90, 90) for seed in range(12))
    with pytest.raises(SettingError, match="lose 420 visual tokens, so its position IDs may run to 548"):
        served(llm, [Request("<image> w1 " * 12, images, keep_ratio=0.02)])
    requests = [Request("w1 <image> w2", (A,)), Request("w1 <image> w2", images[:1], keep_ratio=0.02)]
    for output, answer in zip(served(llm, requests), expected(llava, FOPRU, requests), strict=True):
        check_equal(output, answer)


def test_refusals_reach_the_user(llava: Path) -> None:
    with (
        pytest.raises(Exception, match="FastV cannot run inside vLLM: it needs the attention of decoder layers"),
        engine(llava, "TokenPruneLlava", {"strategy": "fastv"}),
    ):
        pass
    with (
        pytest.raises(Exception, match="--video-pruning-rate cannot be combined with pruned images"),
        engine(llava, "TokenPruneLlava", FOPRU, video_pruning_rate=0.5),
    ):
        pass
    with (
        pytest.raises(Exception, match=r'has no effect on LlavaForConditionalGeneration\. Add "architectures"'),
        engine(llava, "LlavaForConditionalGeneration", FOPRU),
    ):
        pass


def test_without_the_override_nothing_is_pruned(llava: Path) -> None:
    """vLLM then uses its own class and position IDs, and answers like unpruned transformers."""
    requests = [Request("w1 <image> w2 <image> w3", (A, B)), Request("w4 w5")]
    answers = expected(llava, {"strategy": "grid", "keep_ratio": 1.0}, requests)
    with engine(llava, "", {}, hf_overrides={}) as llm:
        model = llm.llm_engine.model_config
        assert (model.architectures, model.uses_mrope) == (["LlavaForConditionalGeneration"], False)
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)
            assert len(output.prompt_token_ids) == answer.n_prompt
