"""Speculative decoding changes no answer of a pruned model, whatever is drafted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.served.drafts import add_mtp, save_eagle3, save_language_model
from helpers.served.engine import V2, check_answers, engine, expected, needs_vllm
from helpers.served.families import FAMILIES
from helpers.served.family import FOPRU, Family
from helpers.served.reference import Request

pytestmark = [needs_vllm, pytest.mark.slow]
needs_v2 = pytest.mark.skipif(not V2, reason="needs model runner V2: VLLM_USE_V2_MODEL_RUNNER=1")
A, B = (1, 140, 112), (2, 200, 90)


def family_of(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def check_drafting(model: Path, family: Family, speculative: Mapping[str, Any]) -> None:
    """Check that answers equal transformers', one by one and together, in steps that end within images. Fails if no
    draft was accepted, or none rejected."""
    i = family.image
    requests = [
        Request(f"w1 w2 {i} w3 w4", (A,), n_new=40),
        Request(f"{i} w5 {i} w6 w7", (A, B), n_new=40),
        Request(f"w1 w2 {i} w3 w4", (B,), keep_ratio=0.5, n_new=40),
        Request("w9 w10 w11", n_new=40),
    ]
    answers = expected(model, FOPRU, requests)
    options = {"max_num_batched_tokens": 40, "max_num_seqs": 8, **family.options}
    with engine(model, family.architecture, FOPRU, speculative_config=dict(speculative), **options) as llm:
        check_answers(llm, requests, answers)
        n = {
            one.name.rpartition("spec_decode_num_")[2]: one.value for one in llm.get_metrics() if hasattr(one, "value")
        }
    assert 0 < n["accepted_tokens"] < n["draft_tokens"]


@pytest.mark.skipif(V2, reason="Triton's interpreter cannot run the kernel with which V2 looks up n-grams")
@pytest.mark.parametrize("name", ["llava-clip", "qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_drafts_from_the_prompt(name: str, tmp_path: Path) -> None:
    family = family_of(name)
    family.save(tmp_path)
    lookup = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    check_drafting(tmp_path, family, lookup)


@needs_v2
def test_a_draft_model_that_sees_no_images(tmp_path: Path) -> None:
    family = family_of("llava-clip")
    family.save(tmp_path / "model")
    save_language_model(tmp_path / "draft", tmp_path / "model")
    draft = {"method": "draft_model", "model": str(tmp_path / "draft"), "num_speculative_tokens": 3}
    check_drafting(tmp_path / "model", family, draft)


@needs_v2
@pytest.mark.parametrize("name", ["llava-clip", "qwen3_vl"])
def test_a_head_that_reads_hidden_states(name: str, tmp_path: Path) -> None:
    family = family_of(name)
    family.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    save_eagle3(tmp_path / "head", config["text_config"]["vocab_size"])
    head = {"method": "eagle3", "model": str(tmp_path / "head"), "num_speculative_tokens": 3}
    check_drafting(tmp_path / "model", family, head)


@needs_v2
@pytest.mark.parametrize("name", ["exaone4_5", "qwen3_5"])
def test_a_head_that_embeds_images(name: str, tmp_path: Path) -> None:
    family = family_of(name)
    family.save(tmp_path)
    add_mtp(tmp_path)
    check_drafting(tmp_path, family, {"method": "mtp", "num_speculative_tokens": 2})
