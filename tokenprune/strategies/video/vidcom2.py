"""VidCom2, Video Compression Commander (https://arxiv.org/abs/2505.14454)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.shares import best_of_frames
from tokenprune.strategy import Record, VideoStrategy
from tokenprune.tokens import Frames, VisualTokens

#: Variances of the Gaussians that compare a token with a centre.
SCALES = tuple(2.0**k for k in range(-3, 2))
#: The share of channels that are compared, those of the lowest variance.
CHANNELS = 0.5
#: Of the softmax over frames: a frame that stands out at all gets all of what is shared unevenly.
TEMPERATURE = 0.01


@register_strategy("vidcom2")
@dataclass(frozen=True)
class VidCom2(VideoStrategy):
    """Keeps the tokens of each frame that are least like the video and the frame; frames least like it keep more.

    A token is compared with the mean of the video and with the mean of its frame, in the half of the channels that
    vary least. Deviation from the released code, which keeps the rounded shares of the frames, whatever their sum: the
    budget is exact, by vLLM's rule. If the sum is too large, the kept tokens most like both means are dropped; if it is
    too small, the dropped ones least like them are kept.
    """

    record: ClassVar[Record] = Record(
        keeps="the tokens that stand out in each frame, and more of them in frames that stand out",
        unmeasured="compares frames of videos",
    )

    def select(self, tokens: VisualTokens) -> Selection:
        return self.filled(tokens, self.choose)

    def choose(self, tokens: VisualTokens, n_kept: int) -> tuple[Float[Tensor, "frames places"], Int[Tensor, " order"]]:
        frames, features = tokens.frames, tokens.features
        channels = steady_channels(frames, features)

        def directions(frame: Float[Tensor, "places width"]) -> Float[Tensor, "places channels"]:
            return normalize(frame[:, channels], dim=-1)

        centres = torch.stack([directions(frame).mean(0) for frame in frames.each(features)])
        centre = centres.mean(0)
        like_video, like_frame = [], []
        for frame, own in zip(frames.each(features), centres, strict=True):
            unit = directions(frame)
            like_video.append(likeness(unit, centre))
            like_frame.append(likeness(unit, own))
        video = torch.stack(like_video)
        scores = -(video + torch.stack(like_frame))
        marked = best_of_frames(scores, shares(video.mean(1), n_kept / frames.frame_tokens.numel(), frames.n_places))
        order = scores.flatten().argsort(descending=True, stable=True)
        return scores, order[(~marked.flatten()[order]).byte().argsort(stable=True)]


def steady_channels(frames: Frames, features: Float[Tensor, "visual width"]) -> Int[Tensor, " channels"]:
    """Return the channels of lowest variance over all tokens of the video, in double precision."""
    n, mean = frames.frame_tokens.numel(), torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for frame in frames.each(features):
        mean += frame.double().sum(0) / n
    variance = torch.zeros_like(mean)
    for frame in frames.each(features):
        variance += (frame.double() - mean).square().sum(0) / n
    return variance.topk(max(1, int(CHANNELS * len(variance))), largest=False).indices


def likeness(vectors: Float[Tensor, "places channels"], centre: Float[Tensor, " channels"]) -> Float[Tensor, " places"]:
    """Return the sum of the Gaussians of each vector's distance from a centre."""
    distance = (vectors - centre).square().sum(-1)
    return torch.stack([torch.exp(-distance / (2 * scale)) for scale in SCALES]).sum(0)


def shares(like_video: Float[Tensor, " frames"], keep_ratio: float, n_places: int) -> Int[Tensor, " frames"]:
    """Return how many tokens each frame keeps: at least one, and more the less it is like the video. Their sum is about
    the budget."""
    distinct = ((-like_video - (-like_video).max()) / TEMPERATURE).softmax(0)
    share = (keep_ratio * (1 + distinct - distinct.mean())).clamp(max=1.0)
    return (share * n_places).round().long().clamp(min=1, max=n_places)
