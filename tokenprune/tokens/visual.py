"""The visual tokens that a strategy reads at each place where it may prune."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.frames import Frames
from tokenprune.tokens.layout import Grid3, Layout, of_left
from tokenprune.tokens.shrunk import Shrunk
from tokenprune.tokens.text_attention import TextAttention
from tokenprune.tokens.tower import KeptInTower


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """The visual tokens of one image or video, after the projector, as the language model would see them.

    features: the embeddings of the tokens, in the order of `layout`.
    layout: their grids, tiles and newline tokens.
    image: the index of the image in the batch, in reading order.
    statistics: the statistics that the strategy declared in `needs`; reading any other raises PruningError.
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
        """(t, h, w) of every raster that the tokens form, in order."""
        return self.layout.grids

    @cached_property
    def rows(self) -> Int[Tensor, " visual"]:
        """The row of each token, numbered consecutively across frames and rasters."""
        return self.layout.rows(self.features.device)

    @cached_property
    def is_newline(self) -> Bool[Tensor, " visual"]:
        """A mask of the newline tokens, which are not patches and are not merged."""
        return self.layout.newline_mask(self.features.device)

    @property
    def n_newlines(self) -> int:
        return 0 if self.layout.newlines is None else int(self.layout.newlines.sum())

    @cached_property
    def frames(self) -> Frames:
        """The frames of a video with at least two. Raises PruningError for anything else."""
        frames = Frames.of(self.layout, self.features.device)
        if frames is None:
            raise PruningError(
                f"image {self.image} of the call has no frames to compare: it is an image, or a video of one frame "
                f"(where a model merges pairs of frames, of two). Sample more frames of the video, or prune with a "
                f"strategy for images, such as FoPru or DivPrune, which prunes videos too."
            )
        return frames

    @property
    def vision_attention(self) -> VisionAttention:
        return self._declared("vision_attention")

    @property
    def tower_features(self) -> Float[Tensor, "visual width"]:
        """What the projector gets of each visual token. As in `features`, a newline token is no patch: it gets the
        maxima of its row."""
        return self.mapped("tower_features")

    @property
    def late_features(self) -> Float[Tensor, "visual width"]:
        """The mean of the tower's hidden states over the last third of its layers, of each visual token."""
        return self.mapped("late_features")

    @property
    def pixels(self) -> Float[Tensor, "tiles channels height width"]:
        """The image's tiles as the vision tower receives them: resized and normalised."""
        return torch.stack(tuple(self._declared("pixels")))

    @property
    def colors(self) -> Float[Tensor, "tiles 3 height width"]:
        """The image's tiles in RGB, 0 to 1."""
        return torch.stack(tuple(self._declared("colors")))

    @property
    def kept_in_tower(self) -> KeptInTower:
        """What is left after pruning in the vision tower; the features of other tokens are meaningless."""
        return self._declared("kept_in_tower")

    @property
    def kept_before_tower(self) -> KeptInTower:
        """The visual tokens whose patches entered the vision tower; the features of other tokens are meaningless."""
        return self._declared("kept_before_tower")

    @property
    def shrunk(self) -> Shrunk:
        """The smaller version that was encoded; the features of tokens whose places it does not take are zeros."""
        return self._declared("shrunk")

    def mapped(self, name: str) -> Float[Tensor, "visual width"]:
        """A statistic of the patches, (tiles, patches, width), of each visual token, as the model maps the features."""
        return torch.vmap(self.layout.to_tokens, in_dims=2, out_dims=1)(self._declared(name))

    def of_tile(self, tile: int) -> tuple[Int[Tensor, " part"], VisualTokens]:
        """Return the indices of one tile's tokens, and these tokens with the statistics of the whole image; what the
        tower has left is restricted to the tile."""
        index, layout = self.layout.of_tile(tile)
        index = index.to(self.features.device)
        statistics = dict(self.statistics)
        if "vision_attention" in statistics:
            statistics["vision_attention"] = statistics["vision_attention"].with_layout(layout)
        for name in ("kept_in_tower", "kept_before_tower"):
            if name in statistics:
                statistics[name] = statistics[name].of_part(index)
        return index, VisualTokens(self.features[index], layout, self.image, statistics)

    def of_left(self, index: Int[Tensor, " left"], features: Float[Tensor, "left width"]) -> VisualTokens:
        """Return the tokens that are left, with their current features. What the tower left of the whole image is no
        longer among the statistics. Tokens of a smaller version are those of an image of that size."""
        if (shrunk := self.statistics.get("shrunk")) is not None:
            others = {name: one for name, one in self.statistics.items() if name != "shrunk"}
            small, left = VisualTokens(features, shrunk.layout, self.image, others), len(index) < len(shrunk.kept)
            return small.of_left(torch.searchsorted(shrunk.kept, index), features) if left else small
        layout = of_left(self.layout, index)
        statistics = {name: one for name, one in self.statistics.items() if not isinstance(one, KeptInTower)}
        if "vision_attention" in statistics:
            statistics["vision_attention"] = statistics["vision_attention"].with_layout(layout)
        return VisualTokens(features, layout, self.image, statistics)

    def _declared(self, name: str) -> Any:
        return _declared(name, name, self.statistics.get(name))


@dataclass(frozen=True, eq=False)
class FirstLayerInputs:
    """Hidden states of one image's visual tokens, and of the text after it, on entry to the first decoder layer."""

    visual: Float[Tensor, "entered width"]
    text: Float[Tensor, "text width"]


@dataclass(frozen=True, eq=False)
class StageTokens:
    """The remaining visual tokens of one image at the start of an in-LLM stage.

    features: their hidden states on entry to the stage's first decoder layer.
    left: their indices within the image's visual tokens, ascending.
    layout: the layout of all the image's visual tokens.
    scores: their scores in the previous selection; None if it gave none.
    text_attention, prompt, text: to be read as `attention`, `entered` and `text_features`. `prompt` is a function,
        because few strategies read its result.
    """

    features: Float[Tensor, "left width"]
    left: Int[Tensor, " left"]
    layout: Layout
    scores: Float[Tensor, " left"] | None = None
    text_attention: TextAttention | None = None
    prompt: Callable[[], FirstLayerInputs] | None = None
    text: Float[Tensor, "text width"] | None = None

    @property
    def n_left(self) -> int:
        return len(self.left)

    @property
    def n_visual(self) -> int:
        """The number of visual tokens of the whole image."""
        return self.layout.n_visual

    @property
    def attention(self) -> TextAttention:
        """The attention of the decoder layer before the stage, or, if the stage `looks_ahead`, of its first one; among
        at least all the remaining tokens."""
        return _declared("attention", "text_attention", self.text_attention)

    @property
    def entered(self) -> FirstLayerInputs:
        """Hidden states on entry to the first decoder layer."""
        return _declared("entered", "text_attention", self.prompt)()

    @property
    def text_features(self) -> Float[Tensor, "text width"]:
        """The hidden states of the text after the image on entry to the stage's first decoder layer."""
        return _declared("text_features", "text_attention", self.text)


@dataclass(frozen=True, eq=False)
class StepTokens:
    """The remaining visual tokens of one image between two denoising steps.

    attention: the attention that the canvas paid to each of them in the step before, averaged over heads and canvas
        positions.
    left: their indices within the image's visual tokens, ascending.
    n_visual: the number of visual tokens of the whole image.
    """

    attention: Float[Tensor, " left"]
    left: Int[Tensor, " left"]
    n_visual: int

    @property
    def n_left(self) -> int:
        return len(self.left)


Declared = TypeVar("Declared")


def _declared(name: str, need: str, value: Declared | None) -> Declared:
    if value is None:
        raise PruningError(
            f'tokens.{name} is not among the strategy\'s needs. Add "{need}" to them, for instance:\n'
            f'    needs = frozenset({{"{need}"}})'
        )
    return value
