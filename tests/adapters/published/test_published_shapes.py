"""Families at the shapes of published checkpoints, with prompts as their processors write them for common sizes.

Widths of heads, patch and merge sizes, kinds of layers and sections of position IDs are the published ones. Layers and
experts are few, hidden states narrow and the vocabulary small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.contract.modes import Run, generated
from helpers.contract.oracle import TOLERANCE, dropped_columns
from helpers.contract.published import as_published
from helpers.families import Family
from helpers.families.base import END, IMAGE, PAD, START, VIDEO, WEIGHTS
from helpers.families.packed import VIDEO_END, VIDEO_START
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers.video_utils import VideoMetadata

import tokenprune

VOCABULARY = 128
QWEN_MARKERS = {"<|image_pad|>": IMAGE, "<|video_pad|>": VIDEO, "<|vision_start|>": START, "<|vision_end|>": END}
GLM_MARKERS = {
    "<|image|>": IMAGE,
    "<|video|>": VIDEO,
    "<|begin_of_image|>": START,
    "<|end_of_image|>": END,
    "<|begin_of_video|>": VIDEO_START,
    "<|end_of_video|>": VIDEO_END,
}


@dataclass(frozen=True)
class Published:
    """A family, which has the settings in `configs/NAME.json`; the others are the defaults, which are the checkpoint's.

    family: the tiny family of the class.
    processor: makes the processor from a tokenizer.
    image, video: their text in a prompt.
    n_visual: visual tokens of the images of 240 x 320 and 320 x 480, and of the video of 4 frames of 240 x 320.
    facts: attributes of the text config that must have the published values.
    """

    family: str
    facts: dict[str, Any]
    processor: Callable[[Any], Any]
    markers: dict[str, int]
    image: str
    video: str
    n_visual: tuple[int, int, int]


def qwen(tokenizer: Any) -> Any:
    """As in the checkpoints' preprocessor_config.json: patches of 16 x 16, mean and deviation 0.5."""
    settings: dict[str, Any] = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pixels: dict[str, Any] = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}}
    return transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(**settings, **pixels), tokenizer, transformers.Qwen3VLVideoProcessor()
    )


def glm(tokenizer: Any) -> Any:
    return transformers.Glm4vProcessor(
        transformers.Glm4vImageProcessor(), tokenizer, transformers.Glm4vVideoProcessor()
    )


def glm46(tokenizer: Any) -> Any:
    return transformers.Glm46VProcessor(
        transformers.Glm46VImageProcessor(), tokenizer, transformers.Glm46VVideoProcessor()
    )


QWEN: dict[str, Any] = {
    "processor": qwen,
    "markers": QWEN_MARKERS,
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
    "n_visual": (80, 150, 160),
}
GLM: dict[str, Any] = {
    "markers": GLM_MARKERS,
    "image": "<|begin_of_image|><|image|><|end_of_image|>",
    "video": "<|begin_of_video|><|video|><|end_of_video|>",
    "n_visual": (99, 187, 198),
}
HYBRID = {"num_attention_heads": 16, "head_dim": 256, "layer_types": ["linear_attention"] * 3 + ["full_attention"]}

#: A head's width is that of the hidden states divided by the number of heads: in GLM-4.1V and GLM-4.6V, four of the 32
#: heads make them narrow.
PUBLISHED = {
    "Qwen3.5-9B": Published("qwen3.5", {**HYBRID, "num_key_value_heads": 4}, **QWEN),
    "Qwen3.5-35B-A3B": Published("qwen3.5-moe", {**HYBRID, "num_key_value_heads": 2}, **QWEN),
    "Qwen3-VL-30B-A3B": Published("qwen3-vl-moe", {}, **QWEN),
    "GLM-4.1V-9B": Published("glm4v", {"num_key_value_heads": 2}, glm, **GLM),
    "GLM-4.6V-Flash": Published("glm4.6v", {"num_key_value_heads": 2}, glm46, **GLM),
    "GLM-4.5V": Published("glm4v-moe", {"num_key_value_heads": 8, "first_k_dense_replace": 1}, glm, **GLM),
}


@lru_cache(maxsize=1)
def served(name: str) -> tuple[Family, Any]:
    family = as_published(PUBLISHED[name].family, name)
    model = family.build()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # by the width of its input, so that states keep their scale
                parameter.mul_(parameter[0].numel() ** -0.5 / WEIGHTS)
    vars(family)["unpatched"] = model  # the oracle runs only after the patch is removed, so it can use the same model
    return family, model


def processor_of(name: str) -> Any:
    """Return the real processor, with a tokenizer of one token per word."""
    published = PUBLISHED[name]
    words = {f"w{number}": number for number in range(VOCABULARY) if number not in published.markers.values()}
    backend = Tokenizer(WordLevel({**words, **published.markers}, unk_token="w1"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=f"w{PAD}", padding_side="left")
    tokenizer.add_special_tokens({"additional_special_tokens": list(published.markers)})
    return published.processor(tokenizer)


def image(height: int, width: int) -> Any:
    return np.random.default_rng(height).integers(0, 255, (height, width, 3), dtype=np.uint8)


def images_prompt(name: str) -> dict[str, Any]:
    """Return a row with one image and a row with two."""
    marker = PUBLISHED[name].image
    return dict(
        processor_of(name)(
            text=[f"w5 {marker} w6 w7", f"w8 w9 {marker} w10 {marker} w11 w12 w13"],
            images=[[image(240, 320)], [image(240, 320), image(320, 480)]],
            padding=True,
            return_tensors="pt",
        )
    )


def video_prompt(name: str) -> dict[str, Any]:
    frames = np.stack([image(240, 320)] * 4)
    times = VideoMetadata(total_num_frames=4, fps=2.0, frames_indices=[0, 1, 2, 3], duration=2.0)
    return dict(
        processor_of(name)(
            text=[f"w5 {PUBLISHED[name].video} w6 w7"],
            videos=[frames],
            videos_kwargs={"video_metadata": [times], "do_sample_frames": False},
            return_tensors="pt",
        )
    )


def answered(name: str, inputs: dict[str, Any], strategy: tokenprune.Strategy) -> tokenprune.Report:
    """Check that an answer equals the oracle's, and return its report. Sums over hundreds of tokens and over heads of
    up to 256 numbers round more than in the tiny models, so the tolerance is relative to the largest logit."""
    family, model = served(name)
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        run = Run(inputs, *generated(model, inputs, do_sample=False))
    dropped = dropped_columns(run.whole(family)["input_ids"], [handle.report])
    expected = run.expected(family, model, dropped)
    error, largest = float((run.logits - expected).abs().max()), float(expected.abs().max())
    assert error < TOLERANCE * largest, f"logits of up to {largest:.1f} differ by {error:.1e}"
    return handle.report


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of GLM-4V's processor
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes(name: str) -> None:
    """Two rows of images with tower attention as the score, then a video of two pairs of frames."""
    published, (_, model) = PUBLISHED[name], served(name)
    text = model.config.get_text_config()
    assert {fact: getattr(text, fact) for fact in published.facts} == published.facts
    strategy = tokenprune.FoPru(keep_ratio=0.1)

    report = answered(name, images_prompt(name), strategy)
    small, large, of_video = published.n_visual
    assert [(one.row, one.n_visual) for one in report.images] == [(0, small), (1, small), (1, large)]
    assert [one.n_kept for one in report.images] == [strategy.budget(one.n_visual) for one in report.images]

    (video,) = answered(name, video_prompt(name), strategy).images
    assert (video.modality, video.n_visual) == ("video", of_video)
    assert video.layout.grid[0] == video.layout.n_tiles == 2
