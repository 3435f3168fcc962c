"""Options of requests: log probabilities of the prompt, beam search, a choice of words, embeddings."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.served.engine import TOLERANCE, engine, expected, needs_vllm, reference_process
from helpers.served.family import FOPRU
from helpers.served.marks import QWEN_IMAGE
from helpers.served.reference import Request, beams, draw, embeddings, prompt_logprobs
from helpers.served.stored import save

pytestmark = [needs_vllm, pytest.mark.slow]
A = (1, 100, 100)
REQUESTS = [
    Request("w1 <image> w2 <image> w3", (A, A)),  # the same image twice
    Request("w1 <image> w2 w4", (A,), keep_ratio=0.5),
    Request("w5 w6 w7"),
]
KEEPING = {"keep_ratio": FOPRU["keep_ratio"]}


@pytest.fixture(scope="module")
def llm(llava: Path) -> Iterator[Any]:
    with engine(llava, "TokenPruneLlava", FOPRU) as llm:
        yield llm


def prompt(request: Request) -> dict[str, Any]:
    ratio = {} if request.keep_ratio is None else {"mm_processor_kwargs": {"keep_ratio": request.keep_ratio}}
    images = {"multi_modal_data": {"image": [draw(*one) for one in request.images]}} if request.images else {}
    return {"prompt": request.text, **images, **ratio}


def test_log_probabilities_of_a_prompt(llava: Path, llm: Any) -> None:
    """vLLM uses no cached prefix for them."""
    from vllm import SamplingParams

    wanted = reference_process().submit(prompt_logprobs, llava, "fopru", KEEPING, REQUESTS).result()
    for _ in range(2):
        outputs = llm.generate(
            list(map(prompt, REQUESTS)), SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False
        )
        for output, after in zip(outputs, wanted, strict=True):
            ids = output.prompt_token_ids
            assert len(after) == len(ids)
            found = [step[token].logprob for step, token in zip(output.prompt_logprobs[1:], ids[1:], strict=True)]
            assert found == pytest.approx([after[place][token] for place, token in enumerate(ids[1:])], abs=TOLERANCE)


def test_beam_search(llava: Path, llm: Any) -> None:
    """Each step sends the answer so far as part of the prompt."""
    from vllm.sampling_params import BeamSearchParams

    for request in REQUESTS:
        wanted, scores = reference_process().submit(beams, llava, "fopru", KEEPING, request, 3).result()
        params = BeamSearchParams(beam_width=3, max_tokens=request.n_new, ignore_eos=True)
        (output,) = llm.beam_search([prompt(request)], params)
        assert [one.tokens[-request.n_new :] for one in output.sequences] == wanted
        assert [one.cum_logprob / request.n_new for one in output.sequences] == pytest.approx(scores, abs=TOLERANCE)


def test_words_to_choose_from(llava: Path, llm: Any) -> None:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    words = [f"w{number}" for number in range(1, 6)]
    allowed = llm.get_tokenizer().convert_tokens_to_ids(words)
    sampling = SamplingParams(temperature=0, max_tokens=1, structured_outputs=StructuredOutputsParams(choice=words))
    outputs = llm.generate(list(map(prompt, REQUESTS)), sampling, use_tqdm=False)
    for output, answer in zip(outputs, expected(llava, FOPRU, REQUESTS), strict=True):
        assert output.outputs[0].token_ids[0] == max(allowed, key=lambda token: answer.first[token])


def test_budgets(llava: Path, llm: Any) -> None:
    """A number of tokens of each image, or the most of a prompt, which a cache tells apart."""
    from vllm import SamplingParams

    images, n_visual = (A, (2, 100, 100)), 36
    budgets = {"keep": 3}, {"keep_ratio": 3 / n_visual}, {"keep_in_prompt": 7}, {"keep_ratio": 1.0, "keep_in_prompt": 6}
    (wanted,) = expected(llava, FOPRU, [Request("w1 <image> w2 <image> w3", images, keep_ratio=3 / n_visual)])
    plain = prompt(Request("w1 <image> w2 <image> w3", images))
    asked = [{**plain, "mm_processor_kwargs": budget} for budget in (*budgets, *budgets)]
    sampling = SamplingParams(temperature=0, max_tokens=len(wanted.tokens), ignore_eos=True)
    for output in llm.generate(asked, sampling, use_tqdm=False):
        assert output.outputs[0].token_ids == wanted.tokens
    with pytest.raises(ValueError, match="keep_in_prompt=1 is less than one visual token for each of the 2 images"):
        llm.generate({**plain, "mm_processor_kwargs": {"keep_in_prompt": 1}}, sampling, use_tqdm=False)
    (whole,) = llm.generate({**plain, "mm_processor_kwargs": {"keep_ratio": 1.0}}, sampling, use_tqdm=False)
    (limited,) = llm.generate(asked[:1], sampling, use_tqdm=False)
    assert len(whole.prompt_token_ids) - len(limited.prompt_token_ids) == 2 * (n_visual - 3)


def test_embeddings(tmp_path: Path) -> None:
    """An embedding model's images are pruned like a generating model's."""
    save("qwen3_vl", tmp_path)
    text, image = f"w1 w2 {QWEN_IMAGE} w3", (1, 140, 112)
    requests = [Request(text, (image,)), Request(text, (image,), keep_ratio=1.0)]
    settings = {"keep_ratio": FOPRU["keep_ratio"]}
    wanted = reference_process().submit(embeddings, tmp_path, "fopru", settings, requests).result()
    prompt: dict[str, Any] = {"prompt": text, "multi_modal_data": {"image": [draw(*image)]}}
    with engine(tmp_path, "TokenPruneQwen3VL", FOPRU, runner="pooling") as llm:
        outputs = llm.embed([prompt, {**prompt, "mm_processor_kwargs": {"keep_ratio": 1.0}}], use_tqdm=False)
    pruned, unpruned = (torch.tensor(output.outputs.embedding) for output in outputs)
    torch.testing.assert_close(pruned, torch.tensor(wanted[0]), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(unpruned, torch.tensor(wanted[1]), rtol=0, atol=TOLERANCE)
    assert (pruned - unpruned).abs().max() > 100 * TOLERANCE
