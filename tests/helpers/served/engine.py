"""A pruned engine in this process, and the comparison of its answers with transformers'."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import gc
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.served import store, stored
from helpers.served.cpu import prepare
from helpers.served.cpu.interpreted import interpret_kernels
from helpers.served.mistral import prompt as mistral_prompt
from helpers.served.reference import Answer, Request, answers, chunk, draw, film, noise
from tokenprune.sequence.position_ids import PositionIds
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.architecture import Architecture
from tokenprune.strategies.parsing import StrategySpec

TOLERANCE = 1e-4
VLLM = find_spec("vllm")
HAS_VLLM = VLLM is not None
#: Whether vLLM still has model runner V1, as up to 0.33.
HAS_V1 = VLLM is not None and Path(str(VLLM.origin)).with_name("v1").joinpath("worker/gpu_model_runner.py").exists()
#: Whether the tests run with model runner V2.
V2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1" or (HAS_VLLM and not HAS_V1)
needs_vllm = pytest.mark.skipif(not HAS_VLLM, reason="vLLM needs its own environment: make test-vllm")
COMPILED = tempfile.TemporaryDirectory(prefix="vllm-cache-")
if HAS_VLLM:  # vLLM reads these when it is imported, and its processes inherit them
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a third of the time to start, and real tracebacks
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CACHE_ROOT": os.environ.get("VLLM_CACHE_ROOT", COMPILED.name),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": os.environ.get("HF_MODULES_CACHE", COMPILED.name),  # code in checkpoints
        "VLLM_USE_BREAKABLE_CUDAGRAPH": "0",  # Kimi K3 would switch them on for all engines of a process
        "VLLM_MLA_DISABLE": "1",  # Kimi's latent attention, whose kernel for CPUs takes no chunked prefill
    }
    if not torch.cuda.is_available():
        interpret_kernels()  # the kernels of V2 and of attention within images
        torch.cuda.is_current_stream_capturing = lambda: False  # MiniCPM-V's resampler asks, and torch cannot tell
        if HAS_V1:
            os.environ["VLLM_USE_V2_MODEL_RUNNER"] = str(int(V2))  # since there is Triton, the default would be V2


@cache
def reference_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def expected(
    model: Path, settings: Mapping[str, Any], requests: Sequence[Request], position_ids: PositionIds | None = None
) -> list[Answer]:
    """Return the answers of transformers with tokenprune, for the settings of an engine."""
    strategy = {name: value for name, value in settings.items() if name not in ("position_ids", "record")}
    by_default = StrategySpec.read(settings["strategy"]).strategy_class.default_position_ids
    ids: PositionIds = position_ids or settings.get("position_ids", by_default)
    arguments = (model, strategy.pop("strategy"), strategy, ids, requests)
    if (model / stored.NAMED).exists():
        if loader := os.environ.get("STORE_ANSWERS"):
            reference_process().submit(store.record, loader, *arguments).result()
        return stored.answers(*arguments)
    return reference_process().submit(answers, *arguments).result()


@contextmanager
def engine(model: Path, architecture: str, settings: Mapping[str, Any], **options: Any) -> Iterator[Any]:
    """Return vLLM's `LLM` in this process, with the plug-in even if tokenprune is not installed with its entry
    points."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    from tokenprune.serving.vllm.plugin import register

    register()
    prepare(architecture)
    chosen: dict[str, Any] = {
        "dtype": "float32",
        "max_model_len": 512,
        "enforce_eager": "CUDA_GRAPHS" not in os.environ,  # `make gpu` sets it
        "distributed_executor_backend": "uni",
        "max_logprobs": -1,  # all tokens of the vocabulary, which `served` requests
        "limit_mm_per_prompt": {"image": 4, "video": 0},
        "block_size": 32,
        "disable_log_stats": False,
        "hf_overrides": {"architectures": [architecture], "tokenprune": dict(settings)},
        **options,
    }
    llm = LLM(str(model), **chosen)
    assert not (HAS_V1 and V2) or llm.llm_engine.vllm_config.use_v2_model_runner
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()
        os.environ.pop("VLLM_USE_BREAKABLE_CUDAGRAPH", None)  # vLLM sets it for some models, and does not reset it


def served(llm: Any, requests: Sequence[Request], adapter: Any = None) -> list[Any]:
    """Return vLLM's outputs for requests that are sent together, to the model or an adapter (a `LoRARequest`)."""
    from vllm import SamplingParams

    n_logprobs, tokenizer = llm.llm_engine.model_config.get_vocab_size(), llm.get_tokenizer()
    architecture = ARCHITECTURES.get(llm.llm_engine.model_config.hf_config.architectures[0])
    prompts, sampling = [], []
    for request in requests:
        if hasattr(tokenizer, "mistral"):
            images = [draw(*one, request.flat) for one in request.images]
            ids = mistral_prompt(tokenizer.mistral, request.text, images)
        else:
            ids = tokenizer(request.text, add_special_tokens=False)["input_ids"]
        prompt: dict[str, Any] = {"prompt_token_ids": ids}
        if data := _data(request, architecture):
            prompt["multi_modal_data"] = data
        ratio = {} if request.keep_ratio is None else {"keep_ratio": request.keep_ratio}
        if options := {**ratio, **dict(request.options)}:
            prompt["mm_processor_kwargs"] = options
        prompts.append(prompt)
        sampling.append(SamplingParams(temperature=0, max_tokens=request.n_new, logprobs=n_logprobs, ignore_eos=True))
    return llm.generate(prompts, sampling, use_tqdm=False, lora_request=adapter)


def _data(request: Request, architecture: Architecture | None) -> dict[str, list[Any]]:
    """Return the images, videos and sounds of a request for vLLM. architecture: None for one of vLLM's own."""
    images = [draw(*one, request.flat) for one in request.images]
    if architecture is not None and architecture.vision_chunks:
        chunks = [chunk(*one, request.flat) for one in request.videos]
        videos = [
            {"type": "video_chunk", "video_chunk": one, "uuid": None, "prompt": "", "video_idx": 0} for one in chunks
        ]
        found = {"vision_chunk": [*architecture.items(images)["vision_chunk"], *videos]}
    else:
        found = {"image": images, "video": [played(film(*one, request.flat)) for one in request.videos]}
        found["audio"] = [(noise(*one), 16000) for one in request.sounds]
    return {modality: items for modality, items in found.items() if items}


def played(shot: tuple[Any, dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
    """Return a film in vLLM's format."""
    frames, facts = shot
    return frames, {**facts, "do_sample_frames": False}


def preemptions(llm: Any) -> float:
    """Return how many times an engine has preempted requests."""
    return sum(one.value for one in llm.get_metrics() if one.name == "vllm:num_preemptions")


@dataclass(frozen=True)
class Apart:
    """The results of an engine in a separate process: its outputs per batch, and how many requests it preempted."""

    outputs: list[list[Any]]
    n_preemptions: float


def served_apart(
    model: Path, architecture: str, settings: Mapping[str, Any], batches: Sequence[Sequence[Request]], **options: Any
) -> Apart:
    """Run several batches on an engine in a separate process, because vLLM's Transformers backend changes transformers'
    classes, which other tests use to save models."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_served_batches, model, architecture, settings, batches, options).result()


def _served_batches(
    model: Path,
    architecture: str,
    settings: Mapping[str, Any],
    batches: Sequence[Sequence[Request]],
    options: Mapping[str, Any],
) -> Apart:
    with engine(model, architecture, settings, **options) as llm:
        return Apart([served(llm, batch) for batch in batches], preemptions(llm))


def check_equal(output: Any, answer: Answer, tolerance: float = TOLERANCE) -> None:
    """Check that vLLM's output has the answer's tokens and log probabilities, and a prompt of the expected length."""
    assert difference(output, answer) < tolerance
    assert list(output.outputs[0].token_ids) == answer.tokens


def check_answers(llm: Any, requests: Sequence[Request], answers: Sequence[Answer]) -> list[Any]:
    """Check vLLM's outputs for requests, one by one and then together. Return the former."""
    alone = [one for request in requests for one in served(llm, [request])]
    llm.reset_prefix_cache()
    for output, answer in zip([*alone, *served(llm, requests)], [*answers, *answers], strict=True):
        check_equal(output, answer)
    return alone


def check_served(
    model: Path, architecture: str, settings: Mapping[str, Any], requests: Sequence[Request], **options: Any
) -> list[Answer]:
    """Check the answers of an engine, and return them."""
    found = expected(model, settings, requests)
    with engine(model, architecture, settings, **options) as llm:
        check_answers(llm, requests, found)
    return found


def difference(output: Any, answer: Answer) -> float:
    """Return the largest difference between log probabilities: of all possible first tokens, and of the answer's tokens
    until the answers diverge."""
    completion = output.outputs[0]
    found = [abs(logprob - completion.logprobs[0][token].logprob) for token, logprob in answer.first.items()]
    assert len(found) >= 24
    for step, token, wanted, logprob in zip(
        completion.logprobs, completion.token_ids, answer.tokens, answer.logprobs, strict=True
    ):
        if token != wanted:
            break
        found.append(abs(step[token].logprob - logprob))
    return max(found)
