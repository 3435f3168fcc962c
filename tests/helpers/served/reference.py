"""The answers of transformers with tokenprune, from a separate process, because vLLM's Transformers backend changes
transformers' classes in its own process."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tokenprune.sequence.position_ids import PositionIds


@dataclass(frozen=True)
class Request:
    """A prompt, with seeds and sizes of its images (seed, width, height), its videos (seed, width, height, frames) and
    its sounds (seed, seconds), for an answer of `n_new` tokens. `options` are those of the model's own processor.
    `flat`: of images with large areas of one colour, as pages and screens have them."""

    text: str
    images: tuple[tuple[int, int, int], ...] = ()
    n_new: int = 10
    keep_ratio: float | None = None
    videos: tuple[tuple[int, int, int, int], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    flat: bool = False
    sounds: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """The answer's tokens and their log probabilities; the log probabilities of possible first tokens; the kept visual
    tokens of each image; the length of the unpruned prompt."""

    tokens: list[int]
    logprobs: list[float]
    first: dict[int, float]
    kept: list[list[int]]
    n_prompt: int


def draw(seed: int, width: int, height: int, flat: bool = False) -> Image.Image:
    """Return an image of large squares, blurred so that patches differ, or of nine squares of one colour each."""
    squares = np.random.default_rng(seed).integers(0, 255, (3, 3, 3) if flat else (5, 5, 3), dtype=np.uint8)
    blur = Image.Resampling.NEAREST if flat else Image.Resampling.BICUBIC
    return Image.fromarray(squares).resize((width, height), blur)


def film(seed: int, width: int, height: int, n_frames: int, flat: bool = False) -> tuple[Any, dict[str, Any]]:
    """Return the frames of a video, none of which may be left out, and the facts that a file reader would report."""
    frames = np.stack([np.asarray(draw(seed + number, width, height, flat)) for number in range(n_frames)])
    facts = {"fps": 2.0, "duration": n_frames / 2, "total_num_frames": n_frames, "frames_indices": [*range(n_frames)]}
    return frames, {**facts, "video_backend": "opencv"}


def chunk(seed: int, width: int, height: int, n_frames: int, flat: bool = False) -> list[Image.Image]:
    """Return the same frames as one of Kimi's chunks."""
    return [draw(seed + number, width, height, flat) for number in range(n_frames)]


def noise(seed: int, seconds: float) -> Any:
    """Return a sound as numbers, 16,000 per second."""
    return np.random.default_rng(seed).normal(size=int(16000 * seconds)).astype(np.float32)


def answers(
    model: Path, strategy: str, settings: dict[str, Any], position_ids: PositionIds, requests: Sequence[Request]
) -> list[Answer]:
    """Answer every request separately, with a patched model in float32."""
    return [_answer(model, strategy, settings, position_ids, request) for request in requests]


@cache
def loaded_model(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, LightOnOcrForConditionalGeneration

    from helpers.served.older import (
        attend_causally_without_windows,
        attend_to_everything,
        decode_plainly,
        rotate_like_qwen3,
        see_images_apart,
        take_older_transformers,
        thinker_class,
    )

    torch.set_num_threads(1)
    # LightOn OCR is published with the type of another model.
    config: Any = AutoConfig.from_pretrained(folder)
    lighton = config.architectures == ["LightOnOCRForConditionalGeneration"]
    kind: Any = LightOnOcrForConditionalGeneration if lighton else thinker_class(config) or AutoModelForImageTextToText
    attend_causally_without_windows()
    take_older_transformers()
    rotate_like_qwen3()
    if config.model_type == "glm5_next":
        decode_plainly()
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    processor = AutoProcessor.from_pretrained(folder)
    if config.model_type == "minimax_m3_vl":
        attend_to_everything()
        see_images_apart(model)
    return model.eval(), processor


def embeddings(model: Path, strategy: str, settings: dict[str, Any], requests: Sequence[Request]) -> list[list[float]]:
    """Return the normalised last hidden state of each prompt's last token, from a patched model in float32."""
    return [_embedding(model, strategy, settings, request) for request in requests]


def _embedding(model_folder: Path, strategy: str, settings: dict[str, Any], request: Request) -> list[float]:
    import torch

    import tokenprune

    model, processor = loaded_model(model_folder)
    inputs = inputs_of(processor, request)
    with tokenprune.patch(model, _chosen(strategy, settings, request)):
        last = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
    return torch.nn.functional.normalize(last, dim=0).tolist()


def prompt_logprobs(
    model: Path, strategy: str, settings: dict[str, Any], requests: Sequence[Request]
) -> list[list[list[float]]]:
    """Return the log probabilities of every token after each token that is left, from a patched model in float32."""
    import tokenprune

    loaded, processor = loaded_model(model)
    found = []
    for request in requests:
        with tokenprune.patch(loaded, _chosen(strategy, settings, request)):
            found.append(loaded(**inputs_of(processor, request)).logits[0].log_softmax(-1).tolist())
    return found


def beams(
    model: Path, strategy: str, settings: dict[str, Any], request: Request, width: int
) -> tuple[list[list[int]], list[float]]:
    """Return the answers of a beam search with a patched model in float32, best first, and their mean log
    probabilities."""
    import tokenprune

    loaded, processor = loaded_model(model)
    inputs = inputs_of(processor, request)
    with tokenprune.patch(loaded, _chosen(strategy, settings, request)):
        out = loaded.generate(
            **inputs,
            do_sample=False,
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=request.n_new,
            return_dict_in_generate=True,
            output_scores=True,
            eos_token_id=None,
        )
    return out.sequences[:, inputs["input_ids"].shape[1] :].tolist(), out.sequences_scores.tolist()


def _answer(
    model_folder: Path, strategy: str, settings: dict[str, Any], position_ids: PositionIds, request: Request
) -> Answer:
    import torch

    import tokenprune

    model, processor = loaded_model(model_folder)
    inputs = inputs_of(processor, request)
    with tokenprune.patch(model, _chosen(strategy, settings, request), position_ids=position_ids) as handle:
        out = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=request.n_new,
            return_dict_in_generate=True,
            output_logits=True,
            eos_token_id=None,
        )
        kept = [one.kept.tolist() for one in handle.report.images] if request.images or request.videos else []
    n_prompt = inputs["input_ids"].shape[1]
    tokens = out.sequences[0, n_prompt:].tolist()
    steps = [logits[0].float().log_softmax(-1) for logits in out.logits]
    chosen = [step[token].item() for step, token in zip(steps, tokens, strict=True)]
    assert len(tokens) == request.n_new
    assert torch.isfinite(steps[0]).all()
    return Answer(tokens, chosen, dict(enumerate(steps[0].tolist())), kept, n_prompt)


def _chosen(strategy: str, settings: dict[str, Any], request: Request) -> Any:
    """Return the strategy at the request's keep ratio."""
    from tokenprune.strategies.parsing import StrategySpec

    ratio = {} if request.keep_ratio is None else {"keep_ratio": request.keep_ratio, "keep": None}
    return StrategySpec.read(strategy).make({**settings, **ratio})


def inputs_of(processor: Any, request: Request) -> Any:
    """Return the inputs that a model's own processor makes from a request."""
    import torch

    from helpers.served.older import count_averaged_frames, with_chunks

    images: list[Any] = [draw(*one, request.flat) for one in request.images]
    if type(processor).__name__ == "LlavaOnevisionProcessor":
        # Otherwise it cuts tiles only from single images, while vLLM cuts all images.
        images = [[image] for image in images]
    kimi = type(processor).__name__ == "Kimi_K25Processor"
    chunks = [chunk(*one, request.flat) for one in request.videos] if kimi else []
    images += [frames[0] for frames in chunks]  # a chunk has as many tokens as a frame
    given: dict[str, Any] = {
        "text": [request.text],
        "images": images or None,
        "return_tensors": "pt",
    }
    if request.sounds:
        given["audio"] = [noise(*one) for one in request.sounds]
    if type(processor).__name__ == "Cosmos3EdgeProcessor":
        given |= {"return_mm_token_type_ids": True, "return_metadata": bool(request.videos)}
    if request.videos and not kimi:
        films, facts = zip(*(film(*one, request.flat) for one in request.videos), strict=True)
        given |= {"videos": list(films), "video_metadata": list(facts), "do_sample_frames": False}
        if type(processor).__name__ == "MuseGlimmerProcessor":  # it reads the times of frames only on request
            given |= {"return_metadata": True}
    inputs = processor(**given, **dict(request.options), add_special_tokens=False)
    inputs.pop("video_metadata", None)
    if chunks:
        count_averaged_frames()
        inputs = with_chunks(inputs, chunks, processor)
    return inputs.to(torch.float32)  # Llama 4's pixels are bfloat16
