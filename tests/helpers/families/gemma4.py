"""Gemma 4: images and videos of any shape, padded to the same number of patches; with and without a vision encoder."""

from typing import Any

import torch

from .base import BREAK, DIFFER, END, IMAGE, NO_EMBEDS, PATCH, START, VIDEO, ImageInputs, Size
from .common import CommonFamily

POOL = 2  # patches side by side that make one visual token
MOST = 16  # visual tokens per image, to which all are padded


class Gemma4(CommonFamily):
    """Each layer has token embeddings in addition to the hidden states, and the last two layers read the keys and
    values of the first two. Its epsilon is larger than usual, with which norms of nearly zero states would enlarge
    rounding to 2e-5.

    side: the length in pixels of a row of the model's pixel input.
    """

    side = PATCH
    typed = True
    sizes = ((24, 32), (40, 24), (32, 32))  # 3 x 4, 5 x 3 and 4 x 4 visual tokens
    video_sizes = ((2, 24, 16), (3, 16, 16))  # 2 frames of 3 x 2, 3 of 2 x 2

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["embedded"] = NO_EMBEDS

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Queries and keys are normalised without a scale: with weights of 1, all attention would go to one token, and
        rounding would decide which one."""
        model = super().build(attention, seed, n_layers)
        layers: Any = self.language_model(model).get_submodule("layers")
        with torch.no_grad():
            for layer in layers:
                layer.self_attn.q_norm.weight.fill_(0.5)
        return model

    def block(self, size: Size) -> list[int]:
        *frames, height, width = size
        n_visual = (height // PATCH // POOL) * (width // PATCH // POOL)
        frame = [START, *[VIDEO if frames else IMAGE] * n_visual, END]
        timestamp = BREAK
        return [timestamp, *frame] * frames[0] if frames else frame

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        *frames, height, width = size
        rows, columns = height // self.side, width // self.side
        n_rows = MOST * (POOL * PATCH // self.side) ** 2
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1)
        places = torch.cat([places, torch.full((n_rows - len(places), 2), -1)])
        pixels = torch.rand(*frames or [1], n_rows, 3 * self.side**2, generator=generator)
        pixels[:, rows * columns :] = 0
        if not frames:
            return {"pixel_values": pixels, "image_position_ids": places[None]}
        return {
            "pixel_values_videos": pixels,
            "video_position_ids": places.expand(*frames, -1, -1),
            "num_frames_per_video": torch.tensor(frames),
        }


class Gemma4MoE(Gemma4):
    """Like the large models: experts, keys as values, and images that attend to all of themselves."""


class Gemma4Unified(Gemma4):
    """No vision encoder: the pixels of each visual token are projected."""

    side = PATCH * POOL

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # For a static cache, generate makes causal masks on layers of full attention, unlike the model itself.
        self.cannot["static"] = DIFFER
