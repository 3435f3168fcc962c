"""The vision tower, from the package's file or from a small copy of the sources."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train.start.dinov2 import PATCH, load_tower, native_positions

STORED_SIDE = 16  # patches per side of the tower's stored position embeddings
BLOCKS, IMAGE_SIZE = 8, STORED_SIDE * PATCH
TOWER_FILE = "tower.pt"


def tower_and_positions(sources: Path) -> tuple[Dinov2Model, Tensor]:
    """Return the first blocks of the packaged DINOv2, and all of its position embeddings, of which they have a
    window."""
    if not (sources / TOWER_FILE).exists():
        onnx_file = sources / "vit_s_focus.onnx"
        return load_tower(onnx_file, blocks=BLOCKS, image_size=IMAGE_SIZE), native_positions(onnx_file)
    saved = torch.load(sources / TOWER_FILE, weights_only=True)
    shape = Dinov2Config(
        hidden_size=384, num_hidden_layers=BLOCKS, num_attention_heads=6, patch_size=PATCH, image_size=IMAGE_SIZE
    )
    tower = Dinov2Model(shape)
    tower.load_state_dict(saved["tower"])
    return tower.eval().requires_grad_(False), saved["positions"].float()
