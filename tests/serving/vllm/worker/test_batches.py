"""Which images the vision tower gets together, and with which arguments."""

from __future__ import annotations

import pytest
import torch

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
