"""What a question attends to in the pictures of its prompt, at the price of the decoder layers up to the one read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.wrappers import unwrap_model
from tokenprune.engine.pruner import pruner_of
from tokenprune.errors import UnsupportedError
from tokenprune.patching import patch
from tokenprune.selection import Selection
from tokenprune.strategy import Stage, StagedStrategy
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.visual import StageTokens, VisualTokens


@dataclass(frozen=True)
class Glance(StagedStrategy):
    """Scores each visual token by what the last token of the prompt pays to it in decoder layer `layer`. The layers
    behind it get one visual token of each picture, so that they cost next to nothing: their answer is not wanted."""

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})

    layer: int = 0

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return (Stage(self.layer + 1, keep=1),)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return Selection.best(tokens.attention.from_last(), 1)


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture of a prompt, as the last token of the prompt attends to it.

    scores: the attention that is paid to each visual token, newline tokens left out; heads averaged.
    places: where the token's middle is, (x, y) in fractions of the picture.
    n_visual: the visual tokens that the picture gave, newline tokens included.
    """

    scores: Float[Tensor, " tokens"]
    places: Float[Tensor, "tokens 2"]
    n_visual: int

    @property
    def focus(self) -> float:
        """How sharply the question attends to this picture: the sum of squares, which is the probability that two
        draws of attention fall on the same token of it. The plain sum tells little: nearly all attention of the last
        token goes to visual tokens, whatever they show.
        """
        return float((self.scores**2).sum())


def glance(model: Any, inputs: Any, layer: int) -> list[Seen]:
    """Every picture in a batch of prompts, in reading order. A patch that the model has is put back afterwards."""
    model = unwrap_model(model)
    replaced = pruner_of(model)
    try:
        with torch.no_grad(), patch(model, Glance(keep_ratio=1.0, layer=layer)) as handle:
            model(**inputs, use_cache=False)
            images = handle.report.images
    finally:
        if replaced is not None:
            replaced.install()
    return [seen(image.stages[0].scores, image.layout) for image in images]


def seen(scores: Float[Tensor, " visual"] | None, layout: Layout) -> Seen:
    """The attention on one picture's visual tokens, without what stands for no place: newline tokens never vote."""
    assert scores is not None
    places = token_places(layout)
    real = ~places.isnan().any(1)
    return Seen(scores.cpu()[real], places[real], layout.n_visual)


def token_places(layout: Layout) -> Float[Tensor, "visual 2"]:
    """(x, y) of the middle of each visual token in fractions of the picture; NaN for newline tokens.

    Raises UnsupportedError for layouts whose rasters show parts of the picture.
    """
    newlines = torch.zeros(layout.n_visual, dtype=torch.bool) if layout.newlines is None else layout.newlines.cpu()
    if layout.n_tiles > 1 and layout.newlines is None:
        raise UnsupportedError(
            "this model cuts a tile into tiles of its own, and which part each shows is not known. Give Zoom a smaller "
            "tile, or switch the processor's own tiles off."
        )
    raster, _, row, column = layout.coordinates().T
    places = torch.full((layout.n_visual, 2), torch.nan)
    for number in raster.unique():
        own = (raster == number) & ~newlines
        if own.any():
            places[own, 0] = (column[own] + 0.5) / (int(column[own].max()) + 1)
            places[own, 1] = (row[own] + 0.5) / (int(row[own].max()) + 1)
    return places
