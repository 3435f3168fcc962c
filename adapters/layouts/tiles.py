"""Which tiles belong to one image, read from the prompt: the processor writes it there, and the model is not told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def run_starts(visual: Bool[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
    """The first column of every run of visual tokens."""
    before = torch.cat([torch.zeros_like(visual[:, :1]), visual[:, :-1]], 1)
    return visual & ~before


def starts_after_overviews(
    ids: Int[Tensor, "batch length"], visual: Bool[Tensor, "batch length"]
) -> Bool[Tensor, "batch length"]:
    """The first column of every image, for prompts where each tile is a run of visual tokens after a header, and the
    overview, the last or only tile of its image, has a distinct header.

    A header follows the marker that also ends an image. The last tile of a row is an overview, so it reveals both the
    marker and the overview's header, however they are tokenized.
    """
    starts = run_starts(visual)
    for row in range(len(ids)):
        firsts = starts[row].nonzero()[:, 0].tolist()
        if not firsts:
            continue
        after = int(visual[row].nonzero()[-1]) + 1
        line = ids[row].tolist()
        marker = line[after] if after < len(line) else None
        headers = [header(line[:first], marker) for first in firsts]
        for first, previous in zip(firsts[1:], headers, strict=False):
            starts[row, first] = previous == headers[-1]
    return starts


def starts_after_gaps(visual: Bool[Tensor, "batch length"], more_than: int) -> Bool[Tensor, "batch length"]:
    """The first column of every image, for prompts where more than `more_than` columns separate two images, and no more
    than that separate two tiles of an image."""
    starts = run_starts(visual)
    places = torch.arange(visual.shape[1], device=visual.device).expand_as(visual)
    last = places.masked_fill(~visual, -1).cummax(1).values.roll(1, 1)  # the visual column before
    last[:, 0] = -1
    return starts & ((last < 0) | (places - last - 1 > more_than))


def starts_after_final_marker(
    ids: Int[Tensor, "batch length"], visual: Bool[Tensor, "batch length"]
) -> Bool[Tensor, "batch length"]:
    """The first column of every image, for prompts where the marker before an image's last or only tile differs from
    those before other tiles."""
    starts = run_starts(visual)
    for row in range(len(ids)):
        firsts = starts[row].nonzero()[:, 0]
        markers = ids[row, firsts - 1].tolist()
        for first, previous in zip(firsts[1:].tolist(), markers, strict=False):
            starts[row, first] = previous == markers[-1]
    return starts


def header(before: list[int], marker: int | None) -> list[int]:
    """Return what follows the last marker; everything if there is none."""
    return before[len(before) - before[::-1].index(marker) :] if marker in before else before


def token_ids(kwargs: Mapping[str, Any]) -> Int[Tensor, "batch length"]:
    """Return the input IDs of a call or, if it brings embeddings, numbers that distinguish them as IDs would."""
    if kwargs.get("input_ids") is not None:
        return kwargs["input_ids"]
    embeds = kwargs["inputs_embeds"]
    return embeds.flatten(0, 1).unique(dim=0, return_inverse=True)[1].view(embeds.shape[:2])
