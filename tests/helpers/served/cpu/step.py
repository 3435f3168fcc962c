"""Step 3.7 and Step3-VL in vLLM on a CPU, with images like transformers'."""

# pyright: reportMissingImports=false

from functools import cache, wraps
from typing import Any

import torch
import transformers

#: The sides in pixels of an image and of a crop, of 3 x 3 and 2 x 2 visual tokens, and of the largest image.
WHOLE, CROP, MOST = 168, 112, 224


def see_as_transformers() -> None:
    """Make vLLM cut and resize images like transformers, since its own processor hardcodes the published sizes of crops
    and rounds differently, and make its tower rotate by the row of a patch first, instead of by the column."""
    from vllm.model_executor.models import step3_vl, step_vl

    class Images(step3_vl.Step3VLImageProcessor):
        def __init__(self, enable_patch: bool = True) -> None:
            super().__init__(WHOLE, CROP, num_image_feature_size=9, num_patch_feature_size=4, enable_patch=enable_patch)

        @property
        def _theirs(self) -> Any:
            size = {"height": self.image_size, "width": self.image_size}
            return transformers.Step3p7ImageProcessor(size=size, patch_size=self.patch_size, max_image_size=MOST)

        def get_num_image_tokens(self, img_width: int, img_height: int) -> int:
            *_, columns, rows, _ = self._theirs._plan_patches(img_width, img_height, self.image_size, self.patch_size)
            newlines = max(rows - 1, 0)
            return columns * rows * (self.num_patch_feature_size + 2) + self.num_image_feature_size + 2 + newlines

        def __call__(self, images: Any, return_tensors: Any = None) -> Any:
            made = self._theirs(images, return_tensors="pt")
            counts, none = made["num_local_patches"].tolist(), torch.zeros(0, 3, self.patch_size, self.patch_size)
            masks = zip(made.get("patch_newline_masks", [[]] * len(counts)), counts, strict=True)
            newlines = [one for mask, n in masks for one in mask[:n]]
            crops = {"patch_pixel_values": made.get("pixel_values_local", none)}
            crops |= {"num_patches": counts, "patch_newline_mask": torch.tensor(newlines, dtype=torch.bool)}
            made = {"pixel_values": made["pixel_values"], **crops}
            return transformers.BatchFeature(made, tensor_type=return_tensors)

    rope: Any = step_vl.PerceptionEncoderRope2D
    angles = rope._compute_2d_freqs
    if step3_vl.MAX_IMAGE_SIZE != MOST:
        step3_vl.Step3VLImageProcessor, step3_vl.MAX_IMAGE_SIZE = Images, MOST
        rope._compute_2d_freqs = lambda self: angles(self).roll(self.dim // 2, -1)


@cache
def run_step_on_cpus() -> None:
    """Do so, with a tower that returns what vLLM's matrix product takes: no transposed features."""
    from vllm.model_executor.models.step_vl import PerceptionEncoder

    see_as_transformers()
    encode = PerceptionEncoder.forward
    PerceptionEncoder.forward = wraps(encode)(lambda self, pixels: encode(self, pixels).contiguous())
