"""Kimi with its latent attention, which other tests switch off, because vLLM's CPU kernel takes only whole prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.families import FAMILIES
from helpers.served.family import FOPRU
from helpers.served.native.packed import save_kimi

pytestmark = [needs_vllm, pytest.mark.slow]
#: The only sizes that the kernel supports.
SIZES = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 64}


def test_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MLA_DISABLE", "0")
    (kimi,) = (family for family in FAMILIES if family.save is save_kimi)
    save_kimi(tmp_path, **SIZES)
    answers = expected(tmp_path, FOPRU, kimi.requests())
    with engine(tmp_path, kimi.architecture, FOPRU, block_size=16, **kimi.options) as llm:
        assert llm.llm_engine.model_config.use_mla
        for request, answer in zip(kimi.requests(), answers, strict=True):
            (output,) = served(llm, [request])
            check_equal(output, answer)
        for output, answer in zip(served(llm, kimi.requests()), answers, strict=True):
            check_equal(output, answer)
