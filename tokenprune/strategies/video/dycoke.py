"""The temporal half of DyCoke (https://arxiv.org/abs/2411.15024), which prunes before the language model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tokenprune.selection import Selection, split
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.shares import best_of_frames, evenly_spaced, marked_first
from tokenprune.strategy import Record, VideoStrategy
from tokenprune.tokens import VisualTokens

#: Frames in a window.
WINDOW = 4
#: The score of tokens in a window's first frame, above any change.
FIRST = 255.0


@register_strategy("dycokettm")
@dataclass(frozen=True)
class DyCokeTTM(VideoStrategy):
    """Keeps the first of every four frames, and the tokens of the others that changed most (token temporal merging).

    The second frame is compared with the first, the fourth with the third, and the third with the first, place by
    place. Each keeps equally many, those with the lowest cosine. The paper keeps 30 % of them, which is the default,
    0.475. Below 0.25 the budget cannot hold the first frames of all windows, so windows become longer. A budget smaller
    than one frame is spread evenly over the first. Where nothing is left for tokens that changed, there is a warning.

    Only the half of DyCoke before the language model: the other half prunes the KV cache at every decoding step.
    Deviations from the released code, which never prunes the third frame of the last window, and loses the last frame
    of an odd number: here all windows are treated alike, and one at the end may be shorter.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "the first of every four frames, and the tokens of the others that change most (the part of DyCoke "
            "that runs before the language model)"
        ),
        published={"keep_ratio": (1 + 3 * 0.3) / 4},
        unmeasured="compares frames of videos",
    )

    default_keep_ratio: ClassVar[float] = (1 + 3 * 0.3) / 4

    def select(self, tokens: VisualTokens) -> Selection:
        return self.filled(tokens, self.choose)

    def choose(self, tokens: VisualTokens, n_kept: int) -> tuple[Float[Tensor, "frames places"], Int[Tensor, " order"]]:
        frames = tokens.frames
        n_frames, n_places = frames.n_frames, frames.n_places
        window = window_of(n_frames, n_kept // n_places)
        scores, whole = changes(tokens, window), range(0, n_frames, window)
        if n_kept <= len(whole) * n_places and n_frames > 1:
            warnings.warn(
                f"DyCokeTTM: {n_kept} tokens of {n_frames} frames with {n_places} each are used up by whole frames, so "
                f"nothing depends on what changed. Use keep_ratio={self.default_keep_ratio:.3g} as in the paper, or at "
                f"least more than {len(whole) / n_frames:.3g}.",
                stacklevel=2,
            )
        if n_kept < n_places:
            return scores, evenly_spaced(n_places, n_kept, scores.device)
        rest = iter(split(n_kept - len(whole) * n_places, [1] * (n_frames - len(whole))))
        counts = [n_places if frame in whole else next(rest) for frame in range(n_frames)]
        return scores, marked_first(best_of_frames(scores, torch.tensor(counts, device=scores.device)))


def window_of(n_frames: int, n_whole: int) -> int:
    """Return the length of windows, at least four, for which `n_whole` whole frames hold every window's first frame."""
    return max(WINDOW, -(-n_frames // max(n_whole, 1)))


def changes(tokens: VisualTokens, window: int) -> Float[Tensor, "frames places"]:
    """Return 1 - each token's cosine to the same place in the frame that its frame is compared with."""
    scores, first, before = [], None, None
    for number, frame in enumerate(tokens.frames.each(tokens.features)):
        place = number % window
        if place == 0:
            first = frame
            scores.append(torch.full_like(frame[:, 0], FIRST))
        else:
            other = before if place % 2 else first
            assert other is not None
            scores.append(1 - cosine_similarity(frame, other, dim=-1))
        before = frame
    return torch.stack(scores)
