"""EVS and VidCom2 keep the same tokens as vLLM's own implementations for the same embeddings."""

from importlib import import_module

import pytest
import torch
from helpers.served.engine import needs_vllm
from torch import Tensor

from tokenprune import STRATEGIES
from tokenprune.tokens import Layout, VisualTokens

pytestmark = needs_vllm
MERGE, WIDTH = 2, 48


def embeddings(n_frames: int, n_places: int, seed: int) -> Tensor:
    """Return scenes of a few frames, each a little different from the one before."""
    generator = torch.Generator().manual_seed(seed)
    frames = [torch.randn(n_places, WIDTH, generator=generator)]
    while len(frames) < n_frames:
        step = torch.randn(n_places, WIDTH, generator=generator)
        frames.append(step if float(torch.rand((), generator=generator)) < 0.2 else frames[-1] + 0.3 * step)
    return torch.cat(frames)


@pytest.mark.parametrize("grid", [(8, 8, 10), (5, 16, 6), (16, 12, 8)])
@pytest.mark.parametrize("rate", [0.5, 0.75, 0.875])
@pytest.mark.parametrize("name", ["evs", "vidcom2"])
def test_the_same_tokens_as_vllm(name: str, rate: float, grid: tuple[int, int, int]) -> None:
    theirs = import_module(f"vllm.multimodal.video_prune.{name}").compute_retention_mask
    n_frames, rows, columns = grid[0], grid[1] // MERGE, grid[2] // MERGE
    for seed in range(10):
        features = embeddings(n_frames, rows * columns, seed)
        expected = theirs(features, grid, MERGE, rate).nonzero()[:, 0].tolist()
        tokens = VisualTokens(features, Layout.raster((n_frames, rows, columns)))
        assert STRATEGIES[name](keep=len(expected)).select(tokens).kept.tolist() == expected
        assert len(expected) < len(features)
