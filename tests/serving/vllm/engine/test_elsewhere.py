"""Images that were encoded elsewhere or are next to text that was embedded elsewhere, and KV and encoder caches, here
from a folder."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU, words
from helpers.served.marks import QWEN_IMAGE
from helpers.served.reference import Request, draw
from helpers.served.stored import save
from safetensors.torch import load_file
from transformers import InternVLConfig

from tokenprune.errors import SettingError

pytestmark = [needs_vllm, pytest.mark.slow]
DIVPRUNE = {"strategy": "divprune", "keep_ratio": 0.25}
A = (1, 100, 100)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    save("llava_96_words", folder)  # vLLM adds its own token
    return folder


@pytest.fixture(scope="module")
def llm(llava: Path) -> Iterator[Any]:
    with engine(llava, "TokenPruneLlava", DIVPRUNE, enable_mm_embeds=True, enable_prompt_embeds=True) as llm:
        yield llm


def test_embedded_text_beside_an_image(llava: Path, llm: Any) -> None:
    """Two words as embeddings give the same answer as the words."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    request = Request("w5 w6 <image> w7", (A,))
    ids = llm.get_tokenizer()(request.text, add_special_tokens=False)["input_ids"]
    weights = load_file(llava / "model.safetensors")
    (table,) = (weight for name, weight in weights.items() if name.endswith("embed_tokens.weight"))
    file = io.BytesIO()
    torch.save(table[ids[:2]].clone(), file)
    content = [
        {"type": "prompt_embeds", "data": base64.b64encode(file.getvalue()).decode()},
        {"type": "image_pil", "image_pil": draw(*A)},
        {"type": "text", "text": "w7"},
    ]
    sampling = SamplingParams(temperature=0, max_tokens=request.n_new, logprobs=-1, ignore_eos=True)
    (output,) = llm.chat([{"role": "user", "content": content}], sampling, use_tqdm=False)
    check_equal(output, expected(llava, DIVPRUNE, [request])[0])


def test_an_image_of_no_numbers_harms_its_own_request_only(llava: Path, llm: Any) -> None:
    """An error in a worker would end the engine."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    features = torch.full((1, 36, 64), torch.nan)  # DivPrune cannot select from it
    prompt = {"prompt": "w1 <image> w2", "multi_modal_data": {"image": features}}
    llm.generate([prompt], SamplingParams(max_tokens=4), use_tqdm=False)
    request = Request("w1 <image> w2", (A,))
    check_equal(served(llm, [request])[0], expected(llava, DIVPRUNE, [request])[0])


@pytest.mark.parametrize("n", [20, 40, 72])
def test_an_image_of_another_number_of_visual_tokens_is_refused(llm: Any, n: int) -> None:
    """It is refused before it reaches a worker, in which the error would end the engine."""
    prompt = {"prompt": "w1 <image> w2", "multi_modal_data": {"image": torch.zeros(1, n, 64)}}
    with pytest.raises(SettingError, match=f"sent as {n} visual tokens, but this model's images have 36"):
        llm.generate([prompt], use_tqdm=False)


def test_so_is_a_part_of_a_tile() -> None:
    from tokenprune.serving.vllm.models.internvl import InternVLProcessor

    config = InternVLConfig()  # a tile has 256 visual tokens
    asked: Any = SimpleNamespace(info=SimpleNamespace(get_hf_config=lambda: config))
    assert InternVLProcessor.parts(asked, "image", None, 512) == (512,)
    for n in (300, 0):
        with pytest.raises(SettingError, match=f"sent as {n} visual tokens, but this model's images have a multiple"):
            InternVLProcessor.parts(asked, "image", None, n)


SQUARE = (1, 112, 112)


def connector(kind: str, folder: Path, role: str) -> dict[str, Any]:
    name = {"kv": "ExampleConnector", "ec": "ECExampleConnector"}[kind]
    options = {"shared_storage_path": str(folder)}
    return {f"{kind}_connector": name, f"{kind}_role": role, f"{kind}_connector_extra_config": options}


def test_kv_caches(tmp_path: Path) -> None:
    """With a KV connector, vLLM also accepts images that were encoded elsewhere, which FoPru cannot prune. An error in
    the worker would end the engine."""
    save("llava-clip", tmp_path / "model")
    text = f"{words(40)} <image> {words(40)} w8"
    requests = [Request(text, (SQUARE,)), Request(text, (SQUARE,), keep_ratio=0.5)]
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
    request = Request(f"w1 {QWEN_IMAGE} w2", (SQUARE,), keep_ratio=0.5)
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
