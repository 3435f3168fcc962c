"""Pixtral in Mistral's own format, whose visual tokens are patches, and the prompts that mistral-common writes."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import json
from pathlib import Path
from typing import Any
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

import pytest
from helpers.served.engine import check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU, OWN_ROTATION
from helpers.served.marks import MISTRAL_IMAGE
from helpers.served.reference import Request, draw
from helpers.served.server import serving
from helpers.served.stored import save

from tokenprune.evals.run.engines.server import data_url

pytestmark = [needs_vllm, pytest.mark.slow]
A, B = (1, 140, 112), (2, 90, 75)


@pytest.fixture(scope="module")
def pixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixtral")
    save("pixtral_patches", folder)
    return folder


def chat(image: Any) -> list[dict[str, Any]]:
    """Return the messages of a chat with one image."""
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}}, {"type": "text", "text": "w1 w2"}]
    return [{"role": "user", "content": parts}]


def test_a_chat(pixtral: Path) -> None:
    """vLLM gets it with the tokens of its images. If these do not fit the images, it is an error, as without
    pruning."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    image = draw(*A)
    with engine(pixtral, "TokenPrunePixtral", FOPRU) as llm:
        (output,) = llm.chat(chat(image), sampling, use_tqdm=False)
        ids = llm.get_tokenizer().apply_chat_template(chat(image))
        (again,) = llm.generate([{"prompt_token_ids": ids, "multi_modal_data": {"image": [image]}}], sampling)
        assert output.outputs[0].token_ids == again.outputs[0].token_ids
        assert output.prompt_token_ids == again.prompt_token_ids
        assert len(output.prompt_token_ids) == len(ids) - 60  # of 10 x 8
        wrong = {"prompt_token_ids": ids, "multi_modal_data": {"image": [draw(*B)]}}
        with pytest.raises(AssertionError, match="Failed to apply prompt replacement"):
            llm.generate([wrong], sampling)


def test_a_server(pixtral: Path) -> None:
    """`tokenprune serve` finds the format, and vLLM the tokenizer."""
    asked = {"model": str(pixtral), "messages": chat(draw(*A)), "max_tokens": 4}
    headers = {"Content-Type": "application/json"}
    with serving(pixtral, "--strategy", "fopru", "--keep-ratio", "0.25", "--trust-request-mm-kwargs") as url:
        counts = []
        for more in ({}, {"mm_processor_kwargs": {"keep_ratio": 1.0}}):
            body = json.dumps({**asked, **more}).encode()
            with urlopen(UrlRequest(f"{url}/v1/chat/completions", body, headers), timeout=60) as response:
                counts.append(json.load(response)["usage"]["prompt_tokens"])
    assert counts[1] - counts[0] == 60  # of 10 x 8


@pytest.mark.parametrize("text_class", ["Ministral3", "Mistral4"])
def test_other_language_models(text_class: str, tmp_path: Path) -> None:
    """Those of Ministral 3 and Mistral Large 3, whose queries grow with their position beyond the original length.
    Visual tokens have position IDs from 2 to 101."""
    save(text_class.lower(), tmp_path)
    requests = [Request(f"w1 {MISTRAL_IMAGE} w2 {MISTRAL_IMAGE} w3", ((1, 196, 196), (2, 196, 150)))]
    (answer,) = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, "TokenPrunePixtral", FOPRU, max_model_len=256, **OWN_ROTATION) as llm:
        (output,) = served(llm, requests)
    check_equal(output, answer)
    assert difference(output, expected(tmp_path, FOPRU, requests, "compact")[0]) > 1e-2


def test_an_answer_beyond_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unpruned prompt of 252 tokens fits in the table of 256 position IDs, but an answer of 10 does not."""
    save("pixtral", tmp_path, max_position_embeddings=256)
    settings = {**FOPRU, "keep_ratio": 0.02}
    requests = [Request(f"w1 {MISTRAL_IMAGE} w2 " * 9, tuple((seed, 336, 56) for seed in range(9)))]
    (answer,) = expected(tmp_path, settings, requests)
    assert answer.n_prompt == 252

    def outcome() -> Any:
        # vLLM shares tables between the models of a process.
        monkeypatch.setattr("vllm.model_executor.layers.rotary_embedding._ROPE_DICT", {})
        options = {"max_model_len": 256, "limit_mm_per_prompt": {"image": 9}}
        with engine(tmp_path, "TokenPrunePixtral", settings, **options) as llm:
            return served(llm, requests)[0]

    check_equal(outcome(), answer)
    monkeypatch.setattr("tokenprune.serving.vllm.worker.model.lengthen", lambda *_: None)
    assert list(outcome().outputs[0].token_ids) != answer.tokens
