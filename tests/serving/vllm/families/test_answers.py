"""Answers equal transformers' where a family has a path of its own. Most answers are compared in test_families.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import check_served, needs_vllm
from helpers.served.families import CODE, NEMOTRON
from helpers.served.family import FOPRU
from helpers.served.marks import CHAT_IMAGE, GEMMA4_IMAGE, GEMMA_IMAGE, IMAGE, MISTRAL_IMAGE
from helpers.served.minicpmv import MINICPMV_IMAGE
from helpers.served.molmo import MOLMO_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save

pytestmark = [needs_vllm, pytest.mark.slow]
A, B, C, WIDE, SQUARE = (1, 140, 112), (2, 200, 90), (2, 112, 224), (1, 140, 112), (2, 224, 224)
SMALL, OTHER, SMALLEST = (3, 50, 40), (4, 30, 55), (3, 14, 14)
MERGING: dict[str, Any] = {"strategy": "visionzip", "keep_ratio": 0.25, "contextual": 0.4}
COLORS_ALONE: dict[str, Any] = {"strategy": "vflowopt:progressive=False", "keep_ratio": 0.25, "alpha": 1.0}
COLORS = {**COLORS_ALONE, "cell": 2.0}
UNRECYCLED = {**COLORS_ALONE, "strategy": "vflowopt:progressive=False,recycle=False"}
PIXELS: dict[str, Any] = {"strategy": "random", "keep_ratio": 0.25}
COMPACT_PIXELS = {**PIXELS, "position_ids": "compact"}
#: Of Ministral 3 beyond the original length, where queries grow with their position.
GROWING = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 16.0, "original_max_position_embeddings": 64}
GROWING |= {"llama_4_scaling_beta": 0.5}
N, G, M, I = MINICPMV_IMAGE, GEMMA_IMAGE, MISTRAL_IMAGE, MOLMO_IMAGE  # noqa: E741
LARGER = (("max_soft_tokens", 140),)
#: Newlines before and after images, and adjacent images: the newlines of a text and an image, or of two images, become
#: one token. (vLLM itself refuses a single newline after an image.)
JOINED = (
    Request(f"w1\n{G}\n\nw2", (A,)),
    Request(f"w1 {G}{G} w2 {G}", (A, B, B)),
    Request(f"{G}{G}{G}w3", (B, A, B)),
    Request("w1\n\nw2"),
)
MINICPM = (Request(f"w1 {N} w2", (A,)), Request(f"{N} w5 {N} w6 w7", (B, SMALL)), Request("w9 w10"))
#: The tokens of the smallest image are also the last ones of any other.
PIXTRAL = (
    Request(f"w1 w2 {M} w3", (A,)),
    Request(f"{M} w5 {M} {M} w6", ((2, 90, 75), SMALLEST, A)),
    Request(f"w1 {M} {M} w3", (SMALLEST, (2, 90, 75)), keep_ratio=0.5),
    Request(f"w1 {M} w3", (A,), keep_ratio=1.0),
)
MOLMO = (
    Request(f"w1 w2 {I} w3", (A,)),
    Request(f"{I} w5 {I} w6", (A, C)),
    Request(f"w1 {I} w3", (B,), keep_ratio=0.5),
    Request(f"w1 {I} w3", ((3, 98, 98),), keep_ratio=1.0),
)


@dataclass(frozen=True)
class Case:
    """A stored checkpoint, with settings of its language model, and what its engine is asked."""

    name: str
    architecture: str
    requests: Sequence[Request]
    settings: dict[str, Any] = field(default_factory=lambda: FOPRU)
    options: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)


def alone(image: str, *images: tuple[int, int, int]) -> list[Request]:
    """Return a prompt for each image."""
    return [Request(f"w1 {image} w2", (one,)) for one in images]


CASES = {
    # The processor pads the images of a prompt to the number of tiles of the largest one, here three and five.
    "granite, other tiles": Case(
        "granite4_vision",
        "Granite4Vision",
        [
            Request("w1 <image> w2 <image> w3", (WIDE, SQUARE)),
            Request("w1 <image> w2 <image> w3", (SQUARE, WIDE)),
            Request("w4 <image> w5", ((3, 140, 112),)),
        ],
    ),
    # InternViT-6B. A strategy reads queries and keys after their norms.
    "internvl, large": Case("internvl_chat_large", "InternVLChat", alone(CHAT_IMAGE, A, B), options=CODE),
    # These images have up to seven rows or columns of visual tokens, after up to two other tokens: the largest position
    # ID may be a row or a column.
    **{
        name: Case(
            name,
            "Isaac",
            [
                Request("w1 w2 <image> w3", ((1, 224, 112),)),
                Request("<image> w3 <image> w4", ((2, 224, 112), (3, 112, 224))),
            ],
            options={"max_num_batched_tokens": 16},
        )
        for name in ("isaac", "isaac_nested")
    },
    "deepseek_ocr2, colors": Case(
        "deepseek_ocr2",
        "DeepseekOCR2",
        [Request("w1 <image> w2 <image> w3", (A, (2, 100, 100))), Request("<image>", ((3, 90, 200),))],
        {**COLORS_ALONE, "recycle": False},
    ),
    **{
        name: Case(name, f"MiniCPM{name[7].upper()}", MINICPM, options=CODE)
        for name in ("minicpmv2_5", "minicpmv4_0", "minicpmv4_5", "minicpmo2_6")
    },
    "minicpmv, merging": Case("minicpmv4_5", "MiniCPMV", MINICPM, MERGING, CODE),
    "minicpmv, an early layer": Case("minicpmv4_5", "MiniCPMV", MINICPM, {**FOPRU, "layer": 0}, CODE),
    # Images of different sizes share a call of the tower, which pads their patches. Without slices, because the model
    # whose answers are stored pads the pixels of all parts of a prompt to one size.
    "minicpmv, colors": Case("minicpmv4_5", "MiniCPMV", alone(N, SMALL, OTHER), UNRECYCLED, CODE),
    "pixtral, merging": Case("pixtral_patches", "Pixtral", PIXTRAL, MERGING),
    "pixtral, colors": Case("pixtral_patches", "Pixtral", PIXTRAL, COLORS),
    "pixtral, pixels": Case("pixtral_patches", "Pixtral", PIXTRAL, COMPACT_PIXELS),
    "molmo2, merging": Case("molmo2", "Molmo2", MOLMO, MERGING, CODE),
    "molmo2, cells": Case("molmo2", "Molmo2", MOLMO, {"strategy": "mosaic", "keep_ratio": 0.25}, CODE),
    "molmo2, features": Case("molmo2", "Molmo2", MOLMO, {"strategy": "divprune", "keep_ratio": 0.3}, CODE),
    "molmo2, colors": Case("molmo2", "Molmo2", MOLMO, COLORS, CODE),
    "molmo2, pixels": Case("molmo2", "Molmo2", MOLMO, COMPACT_PIXELS, CODE),
    # A norm between tower and projector, as in checkpoints that were trained with multi-token prediction.
    "nemotron, normed": Case(
        "nemotron_h_omni_normed",
        "NemotronOmni",
        [Request(f"w1 {IMAGE} w2", (A,)), Request(f"{IMAGE} w1 {IMAGE} w2", (B, A), keep_ratio=0.5)],
        options=NEMOTRON,
    ),
    # With steps that end before an image that does not fit into them.
    **{
        f"gemma3, newlines, {ids}": Case(
            "gemma3",
            "Gemma3",
            JOINED,
            {**FOPRU, "position_ids": ids},
            {"max_num_batched_tokens": 16, "max_num_seqs": 8},
        )
        for ids in ("original", "compact")
    },
    # The tower gets images of the same padded length together, not in the order of prompts.
    "gemma4, other lengths": Case(
        "gemma4",
        "Gemma4",
        [
            Request(f"w1 {GEMMA4_IMAGE} w2", (A,)),
            Request(f"w1 {GEMMA4_IMAGE} w2 {GEMMA4_IMAGE}", (B, A), options=LARGER),
            Request(f"w1 {GEMMA4_IMAGE} {GEMMA4_IMAGE} w2", (B, A), keep_ratio=0.5),
            Request(f"w1 {GEMMA4_IMAGE} w2", ((3, 60, 180),), options=LARGER),
        ],
    ),
    "gemma3, colors": Case("gemma3", "Gemma3", alone(G, A, B), {**COLORS, "alpha": 0.5}),
    "gemma4, pixels": Case("gemma4", "Gemma4", alone(GEMMA4_IMAGE, A, B), PIXELS),
    # Visual tokens have position IDs from 2 to 273.
    "ministral3": Case(
        "ministral3_vision",
        "Mistral3",
        [
            Request(f"w1 {M} w2 {M} w3", ((1, 196, 196), (2, 196, 160))),
            Request(f"w1 {M} w2", ((3, 196, 196),), keep_ratio=1.0),
        ],
        options={"max_model_len": 256},
        text={"rope_parameters": GROWING},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_answers(case: Case, tmp_path: Path) -> None:
    save(case.name, tmp_path, **case.text)
    check_served(tmp_path, f"TokenPrune{case.architecture}", case.settings, case.requests, **case.options)
