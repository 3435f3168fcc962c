"""KV and encoder caches from elsewhere, here from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU, words
from helpers.served.marks import QWEN_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save

from tokenprune.errors import SettingError

pytestmark = [needs_vllm, pytest.mark.slow]
A = (1, 112, 112)


def connector(kind: str, folder: Path, role: str) -> dict[str, Any]:
    name = {"kv": "ExampleConnector", "ec": "ECExampleConnector"}[kind]
    options = {"shared_storage_path": str(folder)}
    return {f"{kind}_connector": name, f"{kind}_role": role, f"{kind}_connector_extra_config": options}


def test_kv_caches(tmp_path: Path) -> None:
    """With a KV connector, vLLM also accepts images that were encoded elsewhere, which FoPru cannot prune. An error in
    the worker would end the engine."""
    save("llava-clip", tmp_path / "model")
    text = f"{words(40)} <image> {words(40)} w8"
    requests = [Request(text, (A,)), Request(text, (A,), keep_ratio=0.5)]
    answers = expected(tmp_path / "model", FOPRU, requests)
    options = {"kv_transfer_config": connector("kv", tmp_path / "kv", "kv_both")}
    with engine(tmp_path / "model", "TokenPruneLlava", FOPRU, **options) as llm:
        for n_cached in (0, 64):
            for request, answer in zip(requests, answers, strict=True):
                (output,) = served(llm, [request])
                check_equal(output, answer)
                assert output.num_cached_tokens >= n_cached
                llm.reset_prefix_cache()
        prompt = {"prompt": "w1 <image> w2", "multi_modal_data": {"image": torch.zeros(1, 36, 64)}}
        with pytest.raises(SettingError, match=r"this image was encoded elsewhere\. Send the image itself"):
            llm.generate([prompt], use_tqdm=False)
        check_equal(served(llm, requests[:1])[0], answers[0])


def test_encoder_caches(tmp_path: Path) -> None:
    """One instance encodes and prunes, another answers, given the image or its name and grid."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    save("qwen2_5_vl", tmp_path / "model")
    request = Request(f"w1 {QWEN_IMAGE} w2", (A,), keep_ratio=0.5)
    (answer,) = expected(tmp_path / "model", FOPRU, [request])
    options = {"ec_transfer_config": connector("ec", tmp_path / "ec", "ec_producer")}
    with engine(tmp_path / "model", "TokenPruneQwen2_5_VL", FOPRU, **options) as llm:
        ((name, item),) = served(llm, [request])[0].ec_transfer_params.items()
    prompt = {
        "prompt": request.text,
        "multi_modal_data": {"image": {key: torch.tensor([value]) for key, value in item["metadata"].items()}},
        "multi_modal_uuids": {"image": [name]},
        "mm_processor_kwargs": {"keep_ratio": request.keep_ratio},
    }
    options = {"ec_transfer_config": connector("ec", tmp_path / "ec", "ec_consumer")}
    settings = {**FOPRU, "record": str(tmp_path / "kept.jsonl")}
    with engine(tmp_path / "model", "TokenPruneQwen2_5_VL", settings, **options) as llm:
        sampling = SamplingParams(temperature=0, max_tokens=request.n_new, logprobs=-1, ignore_eos=True)
        check_equal(llm.generate([prompt], sampling, use_tqdm=False)[0], answer)
        check_equal(served(llm, [request])[0], answer)
    assert not (tmp_path / "kept.jsonl").read_text()  # nothing was encoded
