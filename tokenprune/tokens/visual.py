"""What a strategy may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.errors import PruningError, SettingError, UnsupportedError, unknown
from tokenprune.selection import StageReport
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Grid3, Layout
from tokenprune.tokens.text_attention import TextAttention

#: All that a strategy can declare in `needs`, and what to do with a model that cannot give it.
STATISTICS = {
    "vision_attention": "attention of one vision-encoder layer; without it use a strategy that scores features",
    "cls": "a CLS token in the vision tower; without one use column sums: "
    'FoPru(score="column"), BackgroundPruning(rank="column")',
    "pixels": "the image as the vision tower gets it; without it use a strategy that scores features",
    "text_tower": "the text tower that its vision tower was trained with, as CLIP's, which no model here has; "
    "pass one: CDPruner(relevance=ClipRelevance(clip, tokenizer, question))",
    "text_attention": "attention of the language model's layers; without it use a strategy that prunes before it",
    "left_in_tower": "a vision tower that may drop patches between its layers: LLaVA's (not LLaVA-NeXT's) with CLIP, "
    "SigLIP or, in recent transformers, DINOv2, eager or sdpa attention, and one feature layer, not among the first; "
    "without it use a strategy that prunes after the tower, as VisionZip",
    "colors": "the image's own colours; without them use a strategy that scores attention or features",
}


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """The visual tokens of one image or video, after the projector, as the language model would see them.

    `features` are in the order of `layout`; `image` counts the images of the batch in reading order. Statistics
    are there only if the strategy declared them in `needs`; asking for another one raises PruningError.
    """

    features: Float[Tensor, "visual width"]
    layout: Layout
    image: int = 0
    statistics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_visual(self) -> int:
        return self.features.shape[0]

    @property
    def grids(self) -> tuple[Grid3, ...]:
        """(t, h, w) of every raster that the tokens form, one after the other."""
        return self.layout.grids

    @cached_property
    def rows(self) -> Int[Tensor, " visual"]:
        """The row of each token, counted on through frames and rasters."""
        return self.layout.rows(self.features.device)

    @cached_property
    def is_newline(self) -> Bool[Tensor, " visual"]:
        """Which visual tokens are newline tokens: no patches, and nothing to merge into one."""
        newlines = self.layout.newlines
        device = self.features.device
        return torch.zeros(self.n_visual, dtype=torch.bool, device=device) if newlines is None else newlines.to(device)

    @property
    def n_newlines(self) -> int:
        return 0 if self.layout.newlines is None else int(self.layout.newlines.sum())

    @property
    def vision_attention(self) -> VisionAttention:
        return self._declared("vision_attention")

    @property
    def pixels(self) -> Float[Tensor, "tiles channels height width"]:
        """The image's tiles as the vision tower gets them: resized and normalised."""
        return torch.stack(tuple(self._declared("pixels")))

    @property
    def colors(self) -> Float[Tensor, "tiles 3 height width"]:
        """The image's tiles in RGB, 0 to 1."""
        return torch.stack(tuple(self._declared("colors")))

    @property
    def left_in_tower(self) -> LeftInTower:
        """What the vision tower has left of the image; the features of other tokens mean nothing."""
        return self._declared("left_in_tower")

    def of_tile(self, tile: int) -> tuple[Int[Tensor, " part"], VisualTokens]:
        """The tokens of one tile, and their indices here. Statistics stay those of the whole image's tiles, reduced
        to the tile's tokens."""
        index, layout = self.layout.of_tile(tile)
        index = index.to(self.features.device)
        statistics = dict(self.statistics)
        if "vision_attention" in statistics:
            statistics["vision_attention"] = statistics["vision_attention"].with_layout(layout)
        return index, VisualTokens(self.features[index], layout, self.image, statistics)

    def _declared(self, name: str) -> Any:
        return _declared(name, name, self.statistics.get(name))


@dataclass(frozen=True, eq=False)
class LeftInTower:
    """What a vision tower that drops patches between its layers has left of one image.

    kept: sorted indices within the image's visual tokens.
    scores: the last that `select_in_tower` gave each of them all; None if it did not score all.
    stages: what was left from which encoder layer on.
    """

    kept: Int[Tensor, " kept"]
    scores: Float[Tensor, " visual"] | None
    stages: tuple[StageReport, ...]


@dataclass(frozen=True, eq=False)
class TowerTokens:
    """The patches of one tile that are left in the vision tower behind encoder layer `layer`.

    n_more: how many layers follow before the one whose output the projector gets: as many more chances to drop some.
    attention: that of the layer, over what it was given.
    values: what its attention averages, of prefix tokens (CLS) and patches.
    left: which of the tile's patches they are, ascending.
    n_patches: how many the whole tile has.
    scores: theirs, by the selection before this one; None if it gave none.
    """

    layer: int
    n_more: int
    attention: VisionAttention
    values: Float[Tensor, "heads tokens width"]
    left: Int[Tensor, " left"]
    n_patches: int
    scores: Float[Tensor, " left"] | None = None

    @property
    def n_left(self) -> int:
        return len(self.left)


@dataclass(frozen=True, eq=False)
class Entered:
    """Hidden states on entry to the first decoder layer: of one image's visual tokens, and of the text behind it."""

    visual: Float[Tensor, "entered width"]
    text: Float[Tensor, "text width"]


@dataclass(frozen=True, eq=False)
class StageTokens:
    """The visual tokens of one image that are left where an in-LLM stage begins.

    features: their hidden states on entry to the stage's first decoder layer.
    left: which of the image's visual tokens they are, ascending.
    layout: of all the image's visual tokens.
    scores: theirs, by the selection before this one; None if it gave none.
    """

    features: Float[Tensor, "left width"]
    left: Int[Tensor, " left"]
    layout: Layout
    scores: Float[Tensor, " left"] | None = None
    text_attention: TextAttention | None = None
    prompt: Entered | None = None

    @property
    def n_left(self) -> int:
        return len(self.left)

    @property
    def n_visual(self) -> int:
        """How many visual tokens the whole image has."""
        return self.layout.n_visual

    @property
    def attention(self) -> TextAttention:
        """That of the decoder layer before the stage, which still saw all the tokens that are left."""
        return _declared("attention", "text_attention", self.text_attention)

    @property
    def entered(self) -> Entered:
        return _declared("entered", "text_attention", self.prompt)


Declared = TypeVar("Declared")


def _declared(name: str, need: str, value: Declared | None) -> Declared:
    if value is None:
        raise PruningError(
            f'tokens.{name} was not asked for. Add this line to the strategy:\n    needs = frozenset({{"{need}"}})'
        )
    return value


def check_needs(owner: str, needs: frozenset[str], offers: frozenset[str], model: str) -> None:
    """Raises SettingError for a need that does not exist, UnsupportedError for one that `model` cannot give."""
    for need in sorted(needs):
        if need not in STATISTICS:
            raise SettingError(f"{owner}.needs: {unknown('statistic', need, STATISTICS)}")
        if need not in offers:
            raise UnsupportedError(
                f"{owner} needs {STATISTICS[need]}. {model} does not have it; it offers: "
                f"{', '.join(sorted(offers)) or 'nothing'}."
            )
