"""A stand-in for Molmo 2's processor, whose code is in published checkpoints."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad
from transformers import BatchFeature, ProcessorMixin

from helpers.served.marks import PATCH

#: An image in a prompt, and each of its visual tokens.
MOLMO_IMAGE, MOLMO_VISUAL = "<|image|>", "<im_patch>"
COLUMN, START, SMALL_START, END = "<im_col>", "<im_start>", "<low_res_im_start>", "<im_end>"
#: The tokens that attend to each other.
INSIDE = (MOLMO_VISUAL, COLUMN, START, SMALL_START, END, "<frame_start>", "<frame_end>", "<im_low>")
#: Patches per side of a crop. It is odd, so that some visual tokens pool fewer patches than others.
CROP, POOL, MARGIN, MOST_CROPS = 7, 2, 1, 4
#: The distance between two crops.
WINDOW = CROP - 2 * MARGIN
WHOLE = torch.arange(CROP**2).view(CROP, CROP)
PATCHES = "tile channel (row y) (column x) -> tile (row column) (y x channel)"


class Images:
    """The image processor, with the names that vLLM reads. vLLM also uses it for videos."""

    size: ClassVar = {"height": CROP * PATCH, "width": CROP * PATCH}
    pooling_size: ClassVar = [POOL, POOL]
    overlap_margins: ClassVar = [MARGIN, MARGIN]
    patch_size, max_crops, num_frames = PATCH, MOST_CROPS, 4

    def __call__(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Return the patches of each image's small version and crops, the patches that each visual token pools, and
        both grids."""
        pixels, pooled, grids = zip(*map(self._one, images), strict=True)
        return {
            "pixel_values": torch.cat(pixels),
            "image_token_pooling": torch.cat(pooled),
            "image_grids": torch.tensor(grids),
            "image_num_crops": torch.tensor([len(one) for one in pixels]),
        }

    def _one(self, image: Image.Image) -> tuple[Tensor, Tensor, list[int]]:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float()
        rows, columns = tiling(image.height, image.width)
        canvas = resized(pixels, rows * WINDOW + 2 * MARGIN, columns * WINDOW + 2 * MARGIN)
        crops = canvas.unfold(1, CROP * PATCH, WINDOW * PATCH).unfold(2, CROP * PATCH, WINDOW * PATCH)
        tiles = torch.cat([resized(pixels, CROP, CROP)[None], rearrange(crops, "channel r c y x -> (r c) channel y x")])
        (crop_rows, down), (crop_columns, across) = places(rows), places(columns)
        number = 1 + crop_rows[:, None] * columns + crop_columns
        parts = [pools(one) for one in (WHOLE, number * CROP**2 + down[:, None] * CROP + across)]
        pooled = torch.cat([one.flatten(0, 1) for one in parts])
        grid = [side for one in parts for side in one.shape[:2]]
        return rearrange(tiles, PATCHES, y=PATCH, x=PATCH), pooled, grid


def frames_of(film: Any) -> dict[str, Tensor]:
    """Return the same for a video (frames, height, width, 3), in which each frame has only a small version."""
    frames = torch.from_numpy(np.array(film)).permute(0, 3, 1, 2).float()
    tiles = torch.stack([resized(frame, CROP, CROP) for frame in frames])
    one = pools(WHOLE)
    pooled = [torch.where(one < 0, one, one + number * CROP**2).flatten(0, 1) for number in range(len(frames))]
    return {
        "pixel_values_videos": rearrange(tiles, PATCHES, y=PATCH, x=PATCH),
        "video_token_pooling": torch.cat(pooled),
        "video_grids": torch.tensor([[len(frames), *one.shape[:2]]]),
    }


def tiling(height: int, width: int) -> tuple[int, int]:
    """Return an image's rows and columns of crops: the fewest that do not shrink it, or those that shrink it least."""
    numbers = range(1, MOST_CROPS + 1)
    tilings = sorted(
        ((rows, columns) for rows in numbers for columns in numbers if rows * columns <= MOST_CROPS),
        key=lambda one: (one[0] * one[1], one[0]),
    )
    inside = np.array([height, width], dtype=np.float32) - 2 * MARGIN * PATCH
    scales = (np.array(tilings, dtype=np.float32) * WINDOW * PATCH / inside).min(1)
    fits = scales >= 1
    return tilings[int(np.where(fits, scales, np.inf).argmin() if fits.any() else scales.argmax())]


def resized(pixels: Tensor, rows: int, columns: int) -> Tensor:
    """Return a normalised image with so many rows and columns of patches."""
    found = interpolate(pixels[None], (rows * PATCH, columns * PATCH), mode="bilinear", antialias=False)[0]
    return (found.round().clamp(0, 255) / 255 - 0.5) / 0.5


def places(n_crops: int) -> tuple[Tensor, Tensor]:
    """Return, for every row or column of a canvas, the crop that it comes from, and its place there."""
    along = torch.arange(n_crops * WINDOW + 2 * MARGIN)
    crop = ((along - MARGIN).clamp(min=0) // WINDOW).clamp(max=n_crops - 1)
    return crop, along - crop * WINDOW


def pools(patches: Tensor) -> Tensor:
    """Return a raster of patches as (rows, columns, patches of each), with -1 outside of it."""
    more = [-side % POOL for side in patches.shape]
    padded = pad(patches, (more[1] // 2, (more[1] + 1) // 2, more[0] // 2, (more[0] + 1) // 2), value=-1)
    return padded.unfold(0, POOL, POOL).unfold(1, POOL, POOL).flatten(2)


class Molmo2Processor(ProcessorMixin):
    """As in vLLM, only prompts with an image begin with the beginning token."""

    image_use_col_tokens, use_single_crop_col_tokens, use_single_crop_start_token = True, False, True
    video_use_col_tokens, use_frame_special_tokens = False, True

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template)
        self.image_processor = self.video_processor = Images()

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["tokenizer"]

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **options: Any
    ) -> BatchFeature:
        (prompt,) = [text] if isinstance(text, str) else text or [""]
        made = self.image_processor(images) if images else {}
        for rows, columns, high, wide in made.get("image_grids", torch.zeros(0, 4, dtype=torch.long)).tolist():
            small = [SMALL_START, *[MOLMO_VISUAL] * (rows * columns), END]
            canvas = [START, *[*[MOLMO_VISUAL] * wide, COLUMN] * high, END]
            prompt = prompt.replace(MOLMO_IMAGE, " ".join([*small, *canvas]), 1)
        if videos is not None:  # one video, whose text vLLM writes itself
            made = {**made, **frames_of(videos[0][0])}
        if images:
            prompt = f"{self.tokenizer.eos_token} {prompt}"
        ids = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        inside = torch.isin(ids, torch.tensor(self.tokenizer.convert_tokens_to_ids(list(INSIDE))))
        found = {"input_ids": ids.long(), "attention_mask": torch.ones_like(ids), "mm_token_type_ids": inside.long()}
        return BatchFeature({**found, **made})
