"""A stand-in for MiniCPM-V's processors, whose code is in published checkpoints."""

from itertools import product
from math import ceil, log
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import unfold
from transformers import ProcessorMixin, WhisperFeatureExtractor
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from helpers.served.marks import PATCH

#: An image, a video and a sound in a prompt.
MINICPMV_IMAGE, MINICPMV_VIDEO, MINICPMO_SOUND = (f"(<{one}>./</{one}>)" for one in ("image", "video", "audio"))
MINICPMV_VISUAL = "<unk>"
#: How published tokenizers name marks.
MARKS = {
    "im_start": "<image>",
    "im_end": "</image>",
    "slice_start": "<slice>",
    "slice_end": "</slice>",
    "im_id_start": "<image_id>",
    "im_id_end": "</image_id>",
    "audio_start": "<|audio_start|>",
    "audio_end": "<|audio_end|>",
    "spk_start": "<|spk_bos|>",
    "spk_end": "<|spk_eos|>",
}
#: Visual tokens of each overview or slice, the side of a square slice, and the most slices of an image.
QUERIES, SIDE, MOST = 16, 4 * PATCH, 4


class MiniCPMVImageProcessor(BaseImageProcessor):
    """With the names that vLLM reads."""

    model_input_names = ("pixel_values",)
    im_id_start, im_id_end, im_start_token, im_end_token = "<image_id>", "</image_id>", "<image>", "</image>"
    image_feature_size, patch_size = QUERIES, PATCH

    def __init__(self, max_slice_nums: int = MOST, version: float = 2.6, **settings: Any) -> None:
        super().__init__()
        self.max_slice_nums, self.version = max_slice_nums, version

    def preprocess(self, images: Any, max_slice_nums: int | None = None, **options: Any) -> BatchFeature:
        """Return the patches of the overview and slices of every image of every prompt, side by side."""
        most = max_slice_nums or self.max_slice_nums
        prompts = [images] if isinstance(images[0], Image.Image) else images
        by_prompt = [[picture(one) for one in prompt] for prompt in prompts]
        parts = [[part for image in prompt for part in cut(image, most)] for prompt in by_prompt]
        return BatchFeature(
            {
                "pixel_values": [[in_a_row(pixels(part)) for part in prompt] for prompt in parts],
                "image_sizes": [[image.size for image in prompt] for prompt in by_prompt],
                "tgt_sizes": [torch.tensor([[p.height // PATCH, p.width // PATCH] for p in one]) for one in parts],
            }
        )

    def get_sliced_grid(self, image_size: Any, max_slice_nums: int | None = None) -> tuple[int, int] | None:
        width, height = image_size
        return tiling(width, height, max_slice_nums or self.max_slice_nums)

    def get_slice_image_placeholder(
        self, image_size: Any, image_idx: int = 0, max_slice_nums: int | None = None, use_image_id: bool | None = True
    ) -> str:
        visual, old = MINICPMV_VISUAL * QUERIES, self.version == 2.5
        number = "" if old or not use_image_id else f"<image_id>{image_idx}</image_id>"
        grid = self.get_sliced_grid(image_size, max_slice_nums)
        if grid is None:
            return f"{number}<image>{visual}</image>"
        one = f"<image>{visual}</image>" if old else f"<slice>{visual}</slice>"
        rows = "\n".join([one * grid[0]] * grid[1])
        return f"{number}<image>{visual}</image>" + (f"<slice>{rows}</slice>" if old else rows)


def picture(image: Any) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))


def tiling(width: int, height: int, most: int) -> tuple[int, int] | None:
    """Return the columns and rows of an image's slices, None for no slices.

    Their number is within one of the image's area in slices; of these grids, the one closest to its aspect ratio is
    chosen.
    """
    wanted = min(ceil(width * height / SIDE**2), most)
    if wanted <= 1:
        return None
    numbers = [n for n in (wanted - 1, wanted, wanted + 1) if 1 < n <= most]
    sides = range(1, most + 1)
    grids = [(columns, rows) for columns, rows in product(sides, sides) if columns * rows in numbers]
    return min(grids, key=lambda grid: abs(log(width / height) - log(grid[0] / grid[1])))


def cut(image: Image.Image, most: int) -> list[Image.Image]:
    """Return an image's overview and slices."""
    found, grid = [image.resize(fitting(*image.size))], tiling(*image.size, most)
    if grid is not None:
        width, height = fitting(image.width / grid[0], image.height / grid[1])
        whole = image.resize((width * grid[0], height * grid[1]))
        for row, column in product(range(grid[1]), range(grid[0])):
            left, top = column * width, row * height
            found.append(whole.crop((left, top, left + width, top + height)))
    return found


def fitting(width: float, height: float) -> tuple[int, int]:
    """Return a size with about as many patches as a square slice has."""
    scale = SIDE / (width * height) ** 0.5
    sides = [max(1, round(side * scale / PATCH)) * PATCH for side in (width, height)]
    return sides[0], sides[1]


def pixels(image: Image.Image) -> Tensor:
    return (torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255 - 0.5) / 0.5


def in_a_row(image: Tensor) -> Tensor:
    """Return the patches of an image (3, height, width) as (3, patch, patches * patch)."""
    patches = unfold(image[None], PATCH, stride=PATCH)[0].unflatten(0, (3, PATCH, PATCH))
    return patches.transpose(2, 3).flatten(2)


class MiniCPMVProcessor(ProcessorMixin):
    """Of its processor, vLLM uses only parts. The tokenizer gets what the class of published ones adds to it."""

    def __init__(self, tokenizer: Any = None, **settings: Any) -> None:
        super().__init__(tokenizer)
        for name, mark in MARKS.items():
            setattr(tokenizer, name, mark)
            setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(mark))
        self.feature_extractor = WhisperFeatureExtractor(feature_size=80)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["tokenizer"]
