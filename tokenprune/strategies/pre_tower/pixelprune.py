"""PixelPrune (https://arxiv.org/abs/2604.00886)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.checks import check_choice, is_number
from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import PatchStrategy, Record
from tokenprune.tokens import PatchTokens
from tokenprune.tokens.attention import BLOCK_ELEMENTS

Metric = Literal["max", "mae", "rmse"]


@register_strategy("pixelprune")
@dataclass(frozen=True)
class PixelPrune(PatchStrategy):
    """Drops, before the vision tower, the visual tokens whose pixels a neighbour predicts: most of a page, a table or a
    screen, and hardly anything of a photograph.

    The prediction is the token on the left (A), or the one above (B) if the one diagonally above (C) resembles A but
    not B. Tokens are compared, within `threshold`, as predicted so far, so that errors do not add up. In the first row,
    the prediction is the token on the left, in the first column the one above; the first token is always kept.

    threshold: the largest error of a prediction, in colours of 0 to 1. 0, the default, drops exact repetitions only.
    metric: the error is the largest of all pixels ("max"), their mean ("mae") or the root of their mean square
        ("rmse").
    keep_ratio, keep: the most that is kept, by default everything; usually the pixels leave less. If they leave more,
        the tokens with the largest errors are kept; errors are the scores. The paper has no such bound.

    Beyond the paper, each frame of a video (in Qwen-VL and GLM-V, each pair) is predicted by itself. GLM-V's tower gets
    frames like images: there the bound applies to each frame, and then to the video.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "patches that no neighbour's pixels predict; the others are never encoded ([in vLLM "
            "too](../serving/README.md#documents-and-screens))"
        ),
        source="released code: PIXELPRUNE_THRESHOLD, PIXELPRUNE_METRIC",
        published={"threshold": 0.0, "metric": "max", "keep_ratio": 1.0},
        unmeasured="prunes pixels, and LLaVA's tower takes whole images",
    )

    default_keep_ratio: ClassVar[float] = 1.0

    threshold: float = 0.0
    metric: Metric = "max"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("PixelPrune", "metric", self.metric, ("max", "mae", "rmse"))
        if not is_number(self.threshold) or not 0 <= self.threshold < 1:
            raise SettingError(
                f"PixelPrune: threshold={self.threshold!r} is not a colour difference in [0, 1). Write "
                f"threshold=0.0 to drop exact repetitions only, or threshold=0.02 for more."
            )
        if self.budget_per == "tile":
            raise SettingError('PixelPrune: the pixels decide how much is left. Leave budget_per="image".')

    def select_patches(self, tokens: PatchTokens) -> Selection:
        grid = tokens.pixels.unflatten(0, tokens.grid)
        errors = prediction_errors(grid, float(self.threshold), self.metric).flatten()
        n_left = int((~(errors <= self.threshold)).sum())  # NaN stays, and Selection raises
        return Selection.best(errors, min(n_left, self.budget(tokens.n_visual)))


def prediction_errors(
    pixels: Float[Tensor, "frames rows columns values"], threshold: float, metric: Metric = "max"
) -> Float[Tensor, "frames rows columns"]:
    """Return the error of each token's prediction. A frame's first token gets the highest error of all, and at least
    1."""
    errors = exact_errors(pixels, metric) if threshold == 0 else anchored_errors(pixels, threshold, metric)
    errors[:, 0, 0] = errors.amax().clamp(min=1.0)
    return errors


def exact_errors(
    pixels: Float[Tensor, "frames rows columns values"], metric: Metric
) -> Float[Tensor, "frames rows columns"]:
    """Return the errors of predictions from the pixels themselves, which equal the predicted ones when only exact
    predictions count."""
    errors = pixels.new_zeros(pixels.shape[:3])
    across = distance(pixels[:, :, 1:], pixels[:, :, :-1], metric)
    down = distance(pixels[:, 1:], pixels[:, :-1], metric)
    from_above = (down[:, :, :-1] == 0) & (across[:, :-1] > 0)
    errors[:, 0, 1:] = across[:, 0]
    errors[:, 1:, 0] = down[:, :, 0]
    errors[:, 1:, 1:] = torch.where(from_above, down[:, :, 1:], across[:, 1:])
    return errors


def anchored_errors(
    pixels: Float[Tensor, "frames rows columns values"], threshold: float, metric: Metric
) -> Float[Tensor, "frames rows columns"]:
    """Return the errors of predictions from what has been predicted so far: a token within `threshold` of its
    prediction is replaced by it. Goes diagonal by diagonal, as each needs only the two before it."""
    _, n_rows, n_columns, _ = pixels.shape
    errors, known = pixels.new_zeros(pixels.shape[:3]), pixels.clone()
    for diagonal in range(1, n_rows + n_columns - 1):
        rows = torch.arange(max(0, diagonal - n_columns + 1), min(diagonal, n_rows - 1) + 1, device=pixels.device)
        columns = diagonal - rows
        left, above = known[:, rows, (columns - 1).clamp(min=0)], known[:, (rows - 1).clamp(min=0), columns]
        corner = known[:, (rows - 1).clamp(min=0), (columns - 1).clamp(min=0)]
        like_left = distance(corner, left, metric) <= threshold
        like_above = distance(corner, above, metric) <= threshold
        from_above = (like_left & ~like_above & (rows > 0)) | (columns == 0)
        prediction = torch.where(from_above[..., None], above, left)
        error = distance(known[:, rows, columns], prediction, metric)
        errors[:, rows, columns] = error
        known[:, rows, columns] = torch.where((error <= threshold)[..., None], prediction, known[:, rows, columns])
    return errors


def distance(
    one: Float[Tensor, "*tokens values"], other: Float[Tensor, "*tokens values"], metric: Metric
) -> Float[Tensor, "*tokens"]:
    """Return the error that `metric` names, over the pixels of each token. Computed in bands of the second-to-last
    axis, so that a large image is never copied whole."""
    n_values = prod(one.shape[:-2]) * one.shape[-1]
    bands = max(1, BLOCK_ELEMENTS // max(1, n_values))
    parts = zip(one.split(bands, -2), other.split(bands, -2), strict=True)
    return torch.cat([_distance(first - second, metric) for first, second in parts], -1)


def _distance(difference: Float[Tensor, "*tokens values"], metric: Metric) -> Float[Tensor, "*tokens"]:
    difference = difference.abs_()
    if metric == "max":
        return difference.amax(-1)
    return difference.mean(-1) if metric == "mae" else difference.square_().mean(-1).sqrt()
