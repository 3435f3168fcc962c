"""Visual tokens whose scores are given."""

import torch

from tokenprune.tokens import Layout, VisionAttention, VisualTokens

#: A thumbnail of 3 x 3, and a canvas of 4 x 4 with a newline token after each row, both of two tiles.
ANYRES = Layout(
    ((1, 3, 3), (1, 4, 5)),
    n_tiles=3,
    tiles=torch.tensor([0] * 9 + [1] * 10 + [2] * 10),
    newlines=torch.arange(29).sub(9).remainder(5).eq(4) & (torch.arange(29) >= 9),
)


def scored(scores: list[float], layout: Layout) -> VisualTokens:
    """Visual tokens that receive attention in proportion to `scores`."""
    keys = torch.tensor(scores).log()[None, None, :, None]
    attention = VisionAttention(torch.ones_like(keys), keys, 1.0, 0, layout)
    return VisualTokens(torch.zeros(len(scores), 2), layout, 0, {"vision_attention": attention})
