"""Visual tokens whose attention is given, or drawn."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenprune.tokens import Layout, VisionAttention, VisualTokens

#: A thumbnail of 3 x 3, and a canvas of 4 x 4 with a newline token after each row, both of two tiles.
ANYRES = Layout(
    ((1, 3, 3), (1, 4, 5)),
    n_tiles=3,
    tiles=torch.tensor([0] * 9 + [1] * 10 + [2] * 10),
    newlines=torch.arange(29).sub(9).remainder(5).eq(4) & (torch.arange(29) >= 9),
)


def scored(
    weights: Sequence[float] | Sequence[Sequence[float]],
    layout: Layout | None = None,
    features: Tensor | None = None,
    cls: float | None = None,
    to_cls: float = 1.0,
) -> VisualTokens:
    """Return visual tokens, by default one row, whose patches attend to each other in proportion to `weights`, of one
    head or of several.

    cls: if given, there is a CLS token, which attends in proportion to this power of them.
    to_cls: the weight of the CLS token itself.
    """
    keys = torch.atleast_2d(torch.tensor(weights)).log()[None, :, :, None]
    n = keys.shape[2] if layout is None else layout.n_visual
    layout = Layout.raster((1, 1, n)) if layout is None else layout
    queries = torch.ones_like(keys)
    if cls is not None:
        keys = torch.cat([torch.tensor(to_cls).log().expand_as(keys[:, :, :1]), keys], 2)
        queries = torch.cat([torch.full_like(queries[:, :, :1], cls), queries], 2)
    queries, keys = (part.expand(layout.n_tiles, -1, -1, -1) for part in (queries, keys))
    attention = VisionAttention(queries, keys, 1.0, 0 if cls is None else 1, layout)
    return VisualTokens(torch.zeros(n, 2) if features is None else features, layout, 0, {"vision_attention": attention})


def drawn(layout: Layout, seed: int = 0, n_prefix: int = 1, width: int = 8, head_width: int = 4) -> VisualTokens:
    """Return visual tokens with random features, attention and pixels."""
    generator = torch.Generator().manual_seed(seed)
    n_patches = layout.n_visual // layout.n_tiles + n_prefix
    queries, keys = torch.randn(2, layout.n_tiles, 2, n_patches, head_width, generator=generator) * 3
    _, height, columns = layout.grids[0]
    statistics = {
        "vision_attention": VisionAttention(queries, keys, 0.5, n_prefix, layout),
        "early_attention": VisionAttention(keys, queries, 0.5, n_prefix, layout),
        "pixels": torch.randn(layout.n_tiles, 3, 2 * height, 2 * columns, generator=generator),
    }
    return VisualTokens(torch.randn(layout.n_visual, width, generator=generator), layout, 0, statistics)
