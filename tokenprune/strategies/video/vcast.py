"""V-CAST (https://arxiv.org/abs/2603.27650)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from tokenprune.checks import check_positive
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.shares import best_of_frames, largest_remainders, marked_first
from tokenprune.strategy import Record, VideoStrategy
from tokenprune.tokens import VisualTokens

EPSILON = 1e-6


@register_strategy("vcast")
@dataclass(frozen=True)
class VCAST(VideoStrategy):
    """Gives more of the budget to frames where the video changes direction, and keeps the tokens of each frame that are
    largest and least like its mean.

    The means of the frames are points on a path, and a frame's weight grows with the angle between the steps to it and
    from it; the first and the last frame count as a right angle. A token's score is 1 - its cosine to the mean of its
    frame, plus its length, scaled to 0..1 in the frame.

    temperature: of the softmax that turns curvatures into weights; a higher one shares the budget more evenly.

    A frame keeps at least one token where the budget allows. Deviations from the released code: what rounding down
    leaves over goes to the frames with the largest fractions, one token each, where the code gives all of it to one
    frame; a budget smaller than the number of frames is not raised to that number.
    """

    record: ClassVar[Record] = Record(
        keeps="the tokens that stand out in each frame, and more of them in frames where the video changes course",
        source="released code: DEFAULT_BUDGET_TEMP",
        published={"temperature": 0.7},
        unmeasured="compares frames of videos",
    )

    temperature: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("VCAST", "temperature", self.temperature, "a softmax temperature")

    def select(self, tokens: VisualTokens) -> Selection:
        return self.filled(tokens, self.choose)

    def choose(self, tokens: VisualTokens, n_kept: int) -> tuple[Float[Tensor, "frames places"], Int[Tensor, " order"]]:
        frames = tokens.frames
        means = [normalize(frame.mean(0), dim=0, eps=EPSILON) for frame in frames.each(tokens.features)]
        each = zip(frames.each(tokens.features), means, strict=True)
        scores = torch.stack([outstanding(frame, mean) for frame, mean in each])
        turns = curvature(torch.stack(means)).cpu().double()
        weights = ((turns - turns.max()) / self.temperature).softmax(0).tolist()
        counts = largest_remainders(weights, n_kept, 1, frames.n_places)
        return scores, marked_first(best_of_frames(scores, torch.tensor(counts, device=scores.device)))


def curvature(means: Float[Tensor, "frames width"]) -> Float[Tensor, " frames"]:
    """Return 1 - the cosine of the steps to and from each frame; 1 at both ends, and where nothing moves."""
    steps = means[1:] - means[:-1]
    inner = 1 - cosine_similarity(steps[:-1], steps[1:], dim=-1, eps=EPSILON)
    end = torch.ones_like(means[:1, 0])
    return torch.cat([end, inner, end])


def outstanding(frame: Float[Tensor, "places width"], mean: Float[Tensor, " width"]) -> Float[Tensor, " places"]:
    """Return how much each token of a frame stands out from its mean, by direction and by length."""
    lengths = frame.norm(dim=-1)
    scaled = (lengths - lengths.min()) / (lengths.max() - lengths.min() + EPSILON)
    return 1 - cosine_similarity(frame, mean[None], dim=-1, eps=EPSILON) + scaled
