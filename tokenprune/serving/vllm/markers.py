"""Markers: text between the visual tokens of one image, such as a token after each row of them.

vLLM writes the prompt before it encodes an image, when it is unknown how many visual tokens are kept between two
markers. So it gets placeholder tokens from the first visual token to the last, and the worker, which knows, puts the
embeddings of the markers between those of the visual tokens. In Molmo 2, vLLM's encoder also returns the embeddings of
the marks around an image, which are markers then.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

#: The place and the token ID of each marker; the first visual token of the image, or marker before it, is at place 0.
Markers = tuple[tuple[int, int], ...]


def markers_between(
    ids: Sequence[int], visual: Bool[Tensor, " placeholder"], embedded: Bool[Tensor, " placeholder"]
) -> Markers:
    """The markers of an image, given its placeholder, which of that is visual, and for which of it vLLM takes rows from
    the encoder: all text from the first of these rows to the last."""
    places = embedded.nonzero()[:, 0].tolist()
    if not places:
        return ()
    between = range(places[0], places[-1] + 1)
    return tuple((place - places[0], ids[place]) for place in between if not visual[place])


def visual_among(markers: Markers, n_visual: int) -> Int[Tensor, " visual"]:
    """The place of each visual token of an image."""
    is_visual = torch.ones(n_visual + len(markers), dtype=torch.bool)
    is_visual[[place for place, _ in markers]] = False
    return is_visual.nonzero()[:, 0]
