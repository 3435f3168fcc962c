"""Which tiles belong to one picture, read from the prompt: what the model is not told, the processor has written."""

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
    """The first column of every picture, where each tile is a run of visual tokens behind a header, and the overview,
    which is the last tile of its picture or the only one, has a header of its own.

    A header follows the marker that also stands behind a picture. The last tile of a row is an overview, so it shows
    both the marker and the overview's header, whatever a tokenizer makes of them.
    """
    begins = run_starts(visual)
    for row in range(len(ids)):
        starts = begins[row].nonzero()[:, 0].tolist()
        if not starts:
            continue
        behind = int(visual[row].nonzero()[-1]) + 1
        line = ids[row].tolist()
        marker = line[behind] if behind < len(line) else None
        headers = [header(line[:start], marker) for start in starts]
        for start, previous in zip(starts[1:], headers, strict=False):
            begins[row, start] = previous == headers[-1]
    return begins


def header(before: list[int], marker: int | None) -> list[int]:
    """What stands behind the last marker."""
    return before[len(before) - before[::-1].index(marker) :] if marker in before else before


def token_ids(kwargs: Mapping[str, Any]) -> Int[Tensor, "batch length"]:
    """The input IDs of a call, or, of embeddings, numbers that tell them apart as IDs would."""
    if kwargs.get("input_ids") is not None:
        return kwargs["input_ids"]
    embeds = kwargs["inputs_embeds"]
    return embeds.flatten(0, 1).unique(dim=0, return_inverse=True)[1].view(embeds.shape[:2])
