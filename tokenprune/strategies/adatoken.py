"""AdaToken-style pruning by cumulative attention (https://arxiv.org/abs/2505.12782)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategies._parts.text_guided import TextGuided, check_count
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Stage
from tokenprune.tokens import StageTokens


@register_strategy("adatoken")
@dataclass(frozen=True)
class AdaToken(TextGuided):
    """Keeps, at stages all through the language model, the fewest visual tokens that together get the share `mass` of
    what the text pays to all that are left, and never more than the budget. Images that the text looks at in few
    places keep few tokens.

    keep_ratio, keep: the most that may be left from `layer` on. keep_ratio=1.0 leaves it to `mass` alone.
    mass: in (0, 1]. 1 keeps the whole budget.
    layer: the decoder layer of the first stage, counted from 0.
    every: how many layers further on each next one is.

    A reconstruction: the paper's abstract says that what each token contributes is measured from attention, and that
    tokens of low contribution are dropped adaptively; formula, layers and thresholds were not to be had. Contribution
    here is the attention of the text after the image, averaged over heads and text, in the layer before the stage,
    scaled to add up to 1 over the visual tokens that are left.
    """

    mass: float = 0.95
    layer: int = 2
    every: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("AdaToken", "layer", self.layer)
        check_count("AdaToken", "every", self.every)
        if not isinstance(self.mass, (int, float)) or isinstance(self.mass, bool) or not 0 < self.mass <= 1:
            raise SettingError(f"AdaToken: mass={self.mass!r} is a share of the attention; write one in (0, 1].")

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        at_most = self.mass < 1
        layers = range(self.layer, max(n_layers, self.layer + 1), self.every)
        return tuple(Stage(layer, self.keep_ratio, self.keep, at_most) for layer in layers)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        scores = tokens.attention.from_text()
        return Selection.best(scores, min(n_carrying(scores, self.mass), stage.budget(tokens.n_visual)))


def n_carrying(scores: Float[Tensor, " left"], mass: float) -> int:
    """The fewest tokens whose scores add up to the share `mass` of all; all tokens for a mass of 1."""
    if mass == 1:
        return len(scores)
    carried = scores.sort(descending=True).values.cumsum(0) / scores.sum().clamp(min=torch.finfo(scores.dtype).tiny)
    return min(int((carried < mass).sum()) + 1, len(scores))
