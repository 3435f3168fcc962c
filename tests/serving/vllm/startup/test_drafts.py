"""Which methods of speculative decoding work with pruned images; test_speculative.py runs them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.startup.drafts import check_drafts


def engine(method: str, v2: bool) -> Any:
    return SimpleNamespace(speculative_config=SimpleNamespace(method=method), use_v2_model_runner=v2)


@pytest.mark.parametrize("method", ["ngram", "ngram_gpu", "suffix"])
@pytest.mark.parametrize("v2", [False, True])
def test_drafts_from_tokens(method: str, v2: bool) -> None:
    check_drafts(engine(method, v2))


@pytest.mark.parametrize("method", ["draft_model", "eagle", "eagle3", "mtp"])
def test_drafts_by_a_model(method: str) -> None:
    check_drafts(engine(method, v2=True))
    with pytest.raises(UnsupportedError, match=rf"'{method}' needs vLLM's model runner V2.*VLLM_USE_V2_MODEL_RUNNER=1"):
        check_drafts(engine(method, v2=False))
    without_v1 = engine(method, v2=True)
    del without_v1.use_v2_model_runner  # as from vLLM 0.34 on
    check_drafts(without_v1)


@pytest.mark.parametrize("method", ["medusa", "dflash", "custom_class"])
def test_other_drafts_are_refused(method: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"{method}.*Use one of ngram, .*mtp, or leave it out"):
        check_drafts(engine(method, v2=True))
