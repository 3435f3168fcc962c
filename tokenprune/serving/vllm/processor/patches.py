"""What a strategy that prunes before the vision tower sees of an image."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from tokenprune.adapters.towers.tower import Normalisation
from tokenprune.engine.tower.patches import patch_tokens
from tokenprune.serving.vllm.towers.from_config import config_with_tower, tower_of_config
from tokenprune.tokens import PatchTokens


def frames_of(config: Any, patches: Real[Tensor, "patches ..."], grid: Int[Tensor, " 3"]) -> list[PatchTokens]:
    """The visual tokens of every frame of an image or video before the vision tower; if the frames of a chunk become
    the same tokens, those of the chunk.

    config: the model's. patches: as its processor makes them. grid: their frames, rows and columns.
    """
    tower = tower_of_config(config)
    assert tower.row is not None
    row = tower.row.describe(grid[None].cpu(), config_with_tower(config).vision_config)
    (tokens,) = patch_tokens(row, colors_of(patches, tower.normalisation))
    n_frames, n_rows, n_columns = tokens.grid
    return [PatchTokens(frame, (1, n_rows, n_columns)) for frame in tokens.pixels.unflatten(0, (n_frames, -1))]


def colors_of(
    patches: Real[Tensor, "patches ..."], normalisation: Normalisation
) -> Float[Tensor, "patches channels colors"]:
    """The colours of patches, 0 to 1, from bytes that the tower normalises, or from normalised values. On the CPU:
    where vLLM prepares images on a GPU, the API server gets them there."""
    mean, std = map(torch.tensor, normalisation)
    by_channel = patches.cpu().reshape(len(patches), len(mean), -1)
    return by_channel.float() / 255 if by_channel.dtype == torch.uint8 else by_channel * std[:, None] + mean[:, None]
