"""Families at the shapes of published checkpoints (heads, patches, tiles, kinds of layers), with few layers and narrow
hidden states, and prompts with the token counts of their real image processors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import transformers
from helpers.contract.published import (
    Placeholders,
    as_published,
    assert_pruned_is_masked,
    build,
    image_of,
    n_placeholders,
    prompt_of,
)
from helpers.families.base import BREAK, END, START

from tokenprune import DivPrune, FoPru, Random, Strategy


def written_by(name: str, **settings: Any) -> Callable[[Any, Any], list[Placeholders]]:
    """Return what counts the placeholders with a processor class, given other arguments that its counts depend on."""

    def runs(inputs: Any, images: Any) -> list[Placeholders]:
        writer = getattr(transformers, name)
        if not hasattr(writer, "replace_image_token"):
            pytest.skip("in this release of transformers, other code writes the placeholders of an image")
        return [[START, n_placeholders(writer, inputs, image_processor=images, **settings)]]

    return runs


def gemma4(inputs: Any, images: Any) -> list[Placeholders]:
    return [[START, int(n)] for n in inputs.pop("num_soft_tokens_per_image")]


def kimi(inputs: Any, images: Any) -> list[Placeholders]:
    return [[START, int(n) // 4] for n in inputs["image_grid_thw"].prod(-1)]


def llama4(inputs: Any, images: Any) -> list[Placeholders]:
    inputs.pop("aspect_ratios")
    tile, overview, n_tiles = 87, BREAK, len(inputs["pixel_values"])
    return [*[[START if i == 0 else tile, 144] for i in range(n_tiles - 1)], [overview, 144]]


def minicpm(inputs: Any, images: Any) -> list[Placeholders]:
    from helpers.families.minicpm import SLICE_END, SLICE_START

    counts = [int(n) // 16 for n in inputs["target_sizes"].prod(-1)]
    for name in ("grids", "num_patches_per_image"):
        inputs.pop(name)
    return [[START, counts[0]], *[[END if i == 0 else SLICE_END, SLICE_START, n] for i, n in enumerate(counts[1:])]]


SIZE = (480, 640)


@dataclass(frozen=True)
class Published:
    """A checkpoint, which has the settings in `configs/NAME.json`.

    images: the image processor class.
    runs: what counts the placeholders that stand for an image.
    n_visual, n_images: the number of its visual tokens, and of images in the report.
    size: height and width of the image.
    settings: settings of the image processor whose published values are not the defaults.
    family: its class's test family, if that is not NAME.
    """

    images: str
    runs: Callable[[Any, Any], list[Placeholders]]
    n_visual: int
    size: tuple[int, int] = SIZE
    n_images: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    family: str = ""


def qwen(family: str) -> Published:
    return Published("Qwen2VLImageProcessor", written_by("Qwen3VLProcessor"), 300, SIZE, 1, {"patch_size": 16}, family)


def glm(family: str, version: str) -> Published:
    return Published(f"{version}ImageProcessor", written_by(f"{version}Processor"), 391, family=family)


PUBLISHED = {
    "gemma4": Published("Gemma4ImageProcessor", gemma4, 266),
    "gemma4-unified": Published("Gemma4UnifiedImageProcessor", gemma4, 266),
    "kimi-k25": Published("Kimi_K25ImageProcessor", kimi, 414),
    "llama4": Published("Llama4ImageProcessor", llama4, 3 * 144, (336, 672)),
    "minicpmv4_6": Published("MiniCPMV4_6ImageProcessor", minicpm, 63 + 2 * 70, n_images=3),
    "minicpmv4_7": Published("MiniCPMV4_6ImageProcessor", minicpm, 63 + 2 * 70, n_images=3),
    "paddleocr-vl": Published("PaddleOCRVLImageProcessor", written_by("PaddleOCRVLProcessor"), 391),
    "deepseek-ocr2": Published(
        "DeepseekOcr2ImageProcessor",
        written_by("DeepseekOcr2Processor", patch_size=16, downsample_ratio=4),
        2 * 144 + 256 + 1,  # crops, whole, separator
        (768, 1536),
    ),
    "glm-ocr": Published("Glm46VImageProcessor", written_by("Glm46VProcessor"), 391),
    "lighton-ocr": Published(
        "PixtralImageProcessor",
        written_by("LightOnOcrProcessor", effective_patch_size=28),
        18 * 23,
        settings={"size": {"longest_edge": 1540}, "patch_size": 28},
    ),
    "hunyuan-vl": Published(
        "HunYuanVLImageProcessor", written_by("HunYuanVLProcessor", cat_extra_token=True), 15 * 21 + 2
    ),
    "qwen2.5-omni": Published(
        "Qwen2VLImageProcessor", written_by("Qwen2_5OmniProcessor"), 391, settings={"patch_size": 14}
    ),
    "qwen3-omni": Published(
        "Qwen2VLImageProcessor", written_by("Qwen3OmniMoeProcessor"), 300, settings={"patch_size": 16}
    ),
    "Qwen3.5-9B": qwen("qwen3.5"),
    "Qwen3.5-35B-A3B": qwen("qwen3.5-moe"),
    "Qwen3-VL-30B-A3B": qwen("qwen3-vl-moe"),
    "GLM-4.1V-9B": glm("glm4v", "Glm4v"),
    "GLM-4.6V-Flash": glm("glm4.6v", "Glm46V"),
    "GLM-4.5V": glm("glm4v-moe", "Glm4v"),
}
#: Families without a vision tower, which have no attention to read.
OTHER_STRATEGIES: dict[str, tuple[Strategy, ...]] = {
    "gemma4-unified": (Random(keep_ratio=0.25), DivPrune(keep_ratio=0.25))
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_at_published_shapes(name: str) -> None:
    published, family = PUBLISHED[name], as_published(PUBLISHED[name].family or name, name)
    model = build(family)
    processor = getattr(transformers, published.images)(**published.settings)
    inputs = dict(processor(images=[image_of(*published.size)], return_tensors="pt"))
    inputs["pixel_values"] = inputs["pixel_values"].float()
    runs = published.runs(inputs, processor)
    assert sum(run[-1] for run in runs) == published.n_visual
    strategies = OTHER_STRATEGIES.get(name, (Random(keep_ratio=0.25), FoPru(keep_ratio=0.25)))
    prompt = prompt_of(family, inputs, runs)
    assert_pruned_is_masked(family, model, prompt, published.n_visual, published.n_images, strategies)
