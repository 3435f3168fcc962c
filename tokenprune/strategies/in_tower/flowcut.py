"""FlowCut (https://arxiv.org/abs/2505.19536)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens


@register_strategy("flowcut")
@dataclass(frozen=True)
class FlowCut(TowerStrategy):
    """Drops patches inside the vision tower, after every second layer: those with the least information flow so far.
    Later layers attend only to the remaining patches, and the language model gets only these.

    A patch's importance after a layer is the mean of its `information_flow` there and its previous importance. The
    number of dropped patches depends on the image: it grows with the concentration of the CLS token's attention
    (`n_dropped`). The last drop comes one layer before the layer whose output the projector gets, and meets the budget
    exactly.

    Matches the authors' package for one image at a time; for several, the package drops as many patches from each as
    from the image that loses most. Its additional step inside the language model for LLaVA-NeXT is not included. In a
    tower without a CLS token (SigLIP), beyond the package, the mean of all patches stands for it: the attention that a
    patch receives on average, and the mean value. Where several patches become one visual token, it has the mean of
    their attention and values. Each tile of an image, and each frame of a video, gets its share of the budget in the
    tower, rounded up; the excess is dropped after the tower, by the last scores.
    """

    record: ClassVar[Record] = Record(
        keeps="the tokens that most information flows through",
        waits=(3, 2),
        claimed="55.6*",
        best_with_cls=True,
    )

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        target = self.tower_budget(tokens.n_visual, tokens.n_image)
        compared = tokens.n_visual != tokens.n_image and tokens.scores is None  # with other tiles, in `select`
        if tokens.n_left <= target and not compared:
            return Selection.all(tokens.n_left, tokens.left.device, tokens.scores)
        attention, values = tokens.attention.cls_or_mean(), tokens.values.float()
        if not tokens.attention.n_prefix:
            values = torch.cat([values.mean(1, keepdim=True), values], 1)
        scores = information_flow(attention, values)
        if tokens.scores is not None:
            scores = (tokens.scores + scores) / 2
        if tokens.n_later_layers % 2 or tokens.n_left <= target:
            return Selection.all(tokens.n_left, tokens.left.device, scores)
        return Selection.best(scores, tokens.n_left - n_dropped(attention, target, tokens.n_later_layers))

    def select(self, tokens: VisualTokens) -> Selection:
        return tokens.kept_in_tower.at_most(self.budget(tokens.n_visual))  # of several tiles, more may be left


def information_flow(
    attention: Float[Tensor, " patches"], values: Float[Tensor, "heads tokens width"]
) -> Float[Tensor, " patches"]:
    """Return the importance of each patch in one layer.

    The CLS token's attention to the patch and the similarity of the patch's value to the CLS token's, each normalised
    over all patches, are summed and multiplied by the L1 norm of the patch's head-averaged value. Similarity is the
    softmax over all tokens of the values' unscaled products, averaged over heads: (a_j / sum a + s_j / sum s) * |v_j|.
    `values` start with the CLS token's.
    """
    alike = (values[:, :1] @ values.transpose(1, 2)).softmax(-1).mean(0)[0, 1:]
    size = values.mean(0)[1:].abs().sum(-1)
    return (attention / attention.sum() + alike / alike.sum()) * size


def n_dropped(attention: Float[Tensor, " patches"], target: int, n_later_layers: int) -> int:
    """Return the number of patches to drop after a layer.

    It is the share (1 - H^2) / sqrt(n_later_layers) of the patches in excess of `target`, where H is the entropy of the
    CLS token's attention, normalised to 1 for uniform attention; all of them if no further layers follow.
    """
    above = len(attention) - target
    if n_later_layers == 0:
        return above
    shares = attention / attention.sum()
    entropy = torch.special.entr(shares).sum() / math.log(len(shares))
    return min(above, round(float(above / n_later_layers**0.5 * (1 - entropy**2))))
