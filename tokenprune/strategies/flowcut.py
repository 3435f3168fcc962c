"""FlowCut (https://arxiv.org/abs/2505.19536)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens


@register_strategy("flowcut")
@dataclass(frozen=True)
class FlowCut(TowerStrategy):
    """Drops patches inside the vision tower, behind every other of its layers: those that information has flowed
    through least so far. Later layers attend to what is left, and that is what the language model gets.

    A patch's importance behind a layer is the mean of what it is there (`flow`) and what it was before. How many go is
    up to the image: the more the CLS token's attention is concentrated, the more (`n_dropped`). Counted back from the
    layer whose output the projector gets, the last drop is behind the one before, and leaves the budget exactly.

    As the authors' package computes it, one image at a time: given several, that drops as many of each as of the one
    that has most to lose. Not here: the further step inside the language model that it takes for LLaVA-NeXT.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"cls", "left_in_tower"})

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return tuple(range(n_layers))

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        target = self.budget(tokens.n_patches)
        if tokens.n_left <= target:
            return Selection.all(tokens.n_left, tokens.left.device, tokens.scores)
        attention = tokens.attention.cls_row()
        scores = flow(attention, tokens.values.float())
        if tokens.scores is not None:
            scores = (tokens.scores + scores) / 2
        if tokens.n_more % 2:
            return Selection.all(tokens.n_left, tokens.left.device, scores)
        return Selection.best(scores, tokens.n_left - n_dropped(attention, target, tokens.n_more))

    def select(self, tokens: VisualTokens) -> Selection:
        left = tokens.left_in_tower
        return Selection(left.kept, tokens.n_visual, left.scores)


def flow(
    attention: Float[Tensor, " patches"], values: Float[Tensor, "heads tokens width"]
) -> Float[Tensor, " patches"]:
    """The importance of each patch in one layer: what the CLS token pays to it and how like its value is to the CLS
    token's, each as shares of all patches, summed, times the absolute size of its value in the mean over heads.

    `values` begin with the CLS token's. Alike is the softmax over all tokens of the values' products, which are not
    scaled, in the mean over heads.
    """
    alike = (values[:, :1] @ values.transpose(1, 2)).softmax(-1).mean(0)[0, 1:]
    size = values.mean(0)[1:].abs().sum(-1)
    return (attention / attention.sum() + alike / alike.sum()) * size


def n_dropped(attention: Float[Tensor, " patches"], target: int, n_more: int) -> int:
    """How many of the patches to drop behind a layer, at most down to `target`: of those above it, the share
    (1 - H^2) / sqrt(n_more), where H is the entropy of the CLS token's attention, 1 if it is even; all of them if no
    layers are left to drop behind."""
    above = len(attention) - target
    if n_more == 0:
        return above
    shares = attention / attention.sum()
    entropy = torch.special.entr(shares).sum() / torch.tensor(len(shares)).log()
    return min(above, round(float(above / n_more**0.5 * (1 - entropy**2))))
