"""Run the vision tower on scenes of any grid, with position embeddings shifted and stretched at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import Dinov2Model

from tokenprune.evals.dev.train.start.dinov2 import NATIVE_SIDE, PATCH
from tokenprune.evals.dev.train.start.tower import STORED_SIDE

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@dataclass(frozen=True)
class Jitter:
    """How far the tower's position embeddings are shifted and stretched: so far that a feature says only roughly where
    it is.

    This gives the language model a reason to use its position IDs, as a LLaVA does. At inference there is no jitter.
    """

    shift: float = 1.0  # native patches, of the 16 that an image covers
    stretch: float = 0.08

    def window(self, rng: random.Random) -> tuple[float, float, float, float]:
        """Draw a window: left, top, width and height in native patches."""
        width, height = (STORED_SIDE * (1 + rng.uniform(-self.stretch, self.stretch)) for _ in range(2))
        x, y = (rng.uniform(-self.shift, self.shift) for _ in range(2))
        corner = (NATIVE_SIDE - STORED_SIDE) // 2
        return corner + (STORED_SIDE - width) / 2 + x, corner + (STORED_SIDE - height) / 2 + y, width, height


NO_JITTER = Jitter(0.0, 0.0)


class Encoder:
    """The tower, with the native position embeddings (1, 1 + 37 * 37, d) of which it has a window."""

    def __init__(self, tower: Dinov2Model, positions: Tensor):
        self.tower, self.device = tower, positions.device
        self.cls_position = positions[:, :1]
        self.grid = positions[:, 1:].reshape(1, NATIVE_SIDE, NATIVE_SIDE, -1).permute(0, 3, 1, 2)

    def windows(
        self, rows: int, columns: int, views: Sequence[tuple[float, float, float, float]]
    ) -> Float[Tensor, "b all d"]:
        """Return the position embeddings of a grid for each view, by bicubic interpolation of the native grid."""
        left, top, width, height = torch.tensor(views).T[:, :, None]
        x = (left + (torch.arange(columns) + 0.5) * width / columns) * 2 / NATIVE_SIDE - 1
        y = (top + (torch.arange(rows) + 0.5) * height / rows) * 2 / NATIVE_SIDE - 1
        points = torch.stack([x[:, None].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, columns)], -1)
        grid = self.grid.expand(len(views), -1, -1, -1)
        sampled = F.grid_sample(
            grid, points.to(self.device), mode="bicubic", padding_mode="border", align_corners=False
        )
        return torch.cat([self.cls_position.expand(len(views), -1, -1), sampled.flatten(2).transpose(1, 2)], dim=1)

    def __call__(
        self, pixels: Sequence[np.ndarray], rng: random.Random, jitter: Jitter, frozen: int = 0
    ) -> Float[Tensor, "b visual d"]:
        """Return the visual features of scenes of one grid. No gradient reaches the first `frozen` blocks."""
        images = torch.from_numpy(np.stack(pixels)).to(self.device).permute(0, 3, 1, 2)
        images = (images.float() / 255 - MEAN.to(self.device)) / STD.to(self.device)
        rows, columns = (side // PATCH for side in images.shape[2:])
        window = self.windows(rows, columns, [jitter.window(rng) for _ in pixels])
        with torch.autocast(self.device.type, torch.bfloat16):
            patches = self.tower.embeddings.patch_embeddings(images)
            cls = self.tower.embeddings.cls_token.expand(len(pixels), -1, -1)
            hidden = torch.cat([cls, patches.float()], dim=1) + window
            for index, block in enumerate(self.tower.encoder.layer):
                hidden = block(hidden.detach() if index == frozen else hidden)
        return hidden[:, 1:].float()
