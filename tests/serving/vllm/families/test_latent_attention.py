"""Kimi with its latent attention, which other tests switch off, because vLLM's CPU kernel takes only whole prompts."""

from pathlib import Path

import pytest
from helpers.served.engine import check_answers, engine, expected, needs_vllm
from helpers.served.families import FAMILIES
from helpers.served.family import FOPRU
from helpers.served.stored import save

pytestmark = [needs_vllm, pytest.mark.slow]
#: The only sizes that the kernel supports.
SIZES = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 64}


def test_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MLA_DISABLE", "0")
    (kimi,) = (family for family in FAMILIES if family.name == "kimi_k25")
    save("kimi_k25_latent", tmp_path)
    answers = expected(tmp_path, FOPRU, kimi.requests())
    with engine(tmp_path, kimi.architecture, FOPRU, block_size=16, **kimi.options) as llm:
        assert llm.llm_engine.model_config.use_mla
        check_answers(llm, kimi.requests(), answers)
