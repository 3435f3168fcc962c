"""What the worker cuts and normalises before vLLM's tower gets it."""

# pyright: reportMissingImports=false

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import needs_vllm
from torch import Tensor

from tokenprune.serving.vllm.worker.batches import arguments_of, image_batches


@pytest.mark.parametrize(
    ("n_visual", "most", "sizes"),
    [([4, 4, 4], 12, [3]), ([4, 4, 4], 11, [2, 1]), ([4, 9, 1, 1], 4, [1, 1, 2]), ([9], 4, [1]), ([9, 9], 1, [1, 1])],
)
def test_batches_are_bounded(n_visual: list[int], most: int, sizes: list[int]) -> None:
    """An image that exceeds the bound is encoded alone."""
    batches = image_batches(n_visual, most)
    assert [batch.stop - batch.start for batch in batches] == sizes
    assert [i for batch in batches for i in range(batch.start, batch.stop)] == list(range(len(n_visual)))


def test_images_of_one_size() -> None:
    assert image_batches([4, 4, 2, 2, 4], 8, sizes="aabba") == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_arguments_of_a_batch() -> None:
    """Arguments are one tensor with rows of all images, tensors and lists with one entry per image, or shared by
    all."""
    pixels, grids = torch.arange(12.0).reshape(6, 2), torch.tensor([[1, 1, 1], [1, 1, 2], [1, 1, 3]])
    given = {"pixel_values": pixels, "grid": grids, "tiles": [1, 2, 3], "token": torch.tensor(7), "name": "abc"}
    found = arguments_of(given, 3, slice(1, 3), {"pixel_values": [1, 2, 3]})
    assert torch.equal(found["pixel_values"], pixels[1:])
    assert torch.equal(found["grid"], grids[1:])
    assert (found["tiles"], int(found["token"]), found["name"]) == ([2, 3], 7, "abc")


#: Pixels that arrive as bytes, because the vision tower normalises them.
BYTES = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)


def halves(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    return (pixels / 127.5 - 1).to(dtype)


@needs_vllm
@pytest.mark.parametrize("norms", [True, False])
def test_pixels(norms: bool) -> None:
    """Up to vLLM 0.33, the processors of these models normalise them."""
    from tokenprune.serving.vllm.models.gemma3 import PrunedGemma3
    from tokenprune.serving.vllm.models.gemma4 import PrunedGemma4
    from tokenprune.serving.vllm.models.nemotron import PrunedNemotron

    image = BYTES if norms else halves(BYTES, torch.float32)
    norm: dict[str, Any] = {"input_norm": halves} if norms else {}
    gemma3: Any = SimpleNamespace(vision_tower=SimpleNamespace(vision_model=SimpleNamespace(**norm)))
    nemotron: Any = SimpleNamespace(**norm)
    gemma4: Any = SimpleNamespace(**{f"vision_{name}": one for name, one in norm.items()})
    seen = halves(BYTES, torch.float32)
    assert torch.equal(PrunedGemma3.normed(gemma3, image), seen)
    assert torch.equal(PrunedNemotron.normed(nemotron, image), seen)
    assert torch.equal(PrunedGemma4.rescaled(gemma4, image.reshape(4, 12)), seen.reshape(4, 12))
