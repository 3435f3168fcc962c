"""Markers: text between the visual tokens of one image, such as a token after each row of them.

vLLM writes the prompt before it encodes an image, when it is unknown how many visual tokens are kept between two
markers. So everything from the first visual token to the last becomes placeholder tokens, and the worker, which knows
the number, inserts the markers' embeddings between those of the visual tokens. If the frames of a video are pruned
together, so does all text of its placeholder. In Molmo 2, vLLM's encoder also returns
the embeddings of the marks around an image, which then count as markers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

#: The place and token ID of each marker; place 0 is the image's first visual token, or the marker before it.
Markers = tuple[tuple[int, int], ...]


def markers_between(
    ids: Sequence[int], visual: Bool[Tensor, " placeholder"], embedded: Bool[Tensor, " placeholder"]
) -> Markers:
    """The markers of an image: all text from the first to the last placeholder token for which vLLM takes a row from
    the encoder, given the placeholder, which of it is visual, and which of it has such rows."""
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
