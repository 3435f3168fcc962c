"""In every family: compact position IDs, and original ones that run beyond the model's table."""

from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import check_answers, check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.families import FAMILIES
from helpers.served.family import Family
from helpers.served.reference import Request

from tokenprune.serving.vllm.architectures import ARCHITECTURES

pytestmark = [needs_vllm, pytest.mark.slow]
NUMBERED = [
    family for family in FAMILIES if ARCHITECTURES[family.architecture].reads_position_ids and family.far is not None
]


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_compact(family: Family, tmp_path: Path) -> None:
    family.save(tmp_path)
    settings, requests = {**family.settings, "position_ids": "compact"}, family.requests()
    answers = expected(tmp_path, settings, requests)
    options: dict[str, Any] = {"max_num_batched_tokens": family.n_step, "max_num_seqs": 8, **family.options}
    if ARCHITECTURES[family.architecture].mrope:
        options["enable_prefix_caching"] = False
    with engine(tmp_path, family.architecture, settings, **options) as llm:
        check_answers(llm, requests, answers)


@pytest.mark.parametrize("family", NUMBERED, ids=[family.name for family in NUMBERED])
def test_beyond_the_table(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = family.far
    assert far is not None
    family.save(tmp_path, max_position_embeddings=far.table)
    settings: dict[str, Any] = {**family.settings, "keep_ratio": 0.02}
    images = tuple((seed, *far.size) for seed in range(far.n_images))
    requests = [Request(f"w1 {family.image} w2 " * far.n_images, images)]
    answers = expected(tmp_path, settings, requests)
    options = {"max_model_len": far.table, "limit_mm_per_prompt": {"image": far.n_images}, **family.options}

    def outcome() -> Any:
        # vLLM shares tables between the models of a process.
        monkeypatch.setattr("vllm.model_executor.layers.rotary_embedding._ROPE_DICT", {})
        with engine(tmp_path, family.architecture, settings, **options) as llm:
            return served(llm, requests)[0]

    check_equal(outcome(), answers[0])
    monkeypatch.setattr("tokenprune.serving.vllm.worker.model.lengthen", lambda *_: None)
    if far.raises is not None:
        with pytest.raises(IndexError, match=far.raises):
            outcome()
    else:
        assert not difference(outcome(), answers[0]) < 1e-2  # usually NaN
