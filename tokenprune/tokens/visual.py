"""The visual tokens that a strategy reads before the language model; and the statistics of them that it can declare in
`needs`, with the check that a model offers these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.errors import PruningError, SettingError, UnsupportedError, unknown
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.frames import Frames
from tokenprune.tokens.layout import Grid3, Layout, of_left
from tokenprune.tokens.shrunk import Shrunk
from tokenprune.tokens.tower import KeptInTower

Declared = TypeVar("Declared")

#: Each text says what to do if a model does not offer the statistic.
STATISTICS = {
    "vision_attention": "attention of one vision-encoder layer; without it, use a strategy that scores features, such "
    "as DivPrune",
    "early_attention": "attention of an earlier vision-encoder layer; without it, use a strategy that reads one layer "
    "only, such as FoPru, or none, such as DivPrune",
    "tower_features": "the features of every visual token before the projector, so a projector that maps each token by "
    "itself, as in LLaVA; without one, compare those after it: tokens.features",
    "late_features": "the hidden states of the vision tower's last layers, and a projector that maps each token by "
    "itself, as in LLaVA; without them, compare the features after the projector: tokens.features",
    "cls": "a CLS token in the vision tower; without one, use column sums: "
    'FoPru(score="column"), BackgroundPruning(rank="column")',
    "pixels": "the image as the vision tower receives it; without it, use a strategy that scores features, such as "
    "DivPrune",
    "text_tower": "the text tower that its vision tower was trained with, such as CLIP's, which no model here "
    "includes; pass one: CDPruner(relevance=ClipRelevance(clip, tokenizer, question))",
    "text_attention": "attention of the language model's layers; without it, use a strategy that prunes before it",
    "canvas_attention": "attention of the tokens that a block diffusion model denoises; without it, use a strategy "
    "that prunes before the language model",
    "kept_in_tower": "a vision tower that may drop patches between its layers: with eager or sdpa attention and one "
    "feature layer, not among the first, that comes after a layer which attends to whole images; `tokenprune models "
    "NAME` says whether a model's tower may; without it, use a strategy that prunes after the tower, such as VisionZip",
    "kept_before_tower": "a vision tower that takes the patches of all images in one row and can skip some of them; "
    "`tokenprune models NAME` says whether a model's tower can; without it, use a strategy that prunes after the "
    "tower, such as DivPrune",
    "shrunk": "a vision tower that encodes smaller images than its own, as far as `patch` knows how to make them; "
    "`tokenprune models NAME` says whether a model's does; without it, lower the size in the processor's settings, or "
    "use a strategy that prunes after the tower, such as FoPru",
    "grid": "the rows and columns of visual tokens; without them, use a strategy that scores attention or features, "
    "such as FoPru or DivPrune",
    "frames": "videos whose frames it can compare; without them, use a strategy for images, which prunes videos too",
    "colors": "the image's own colours; without them, use a strategy that scores attention or features",
}


class Offered(Set[str]):
    """The statistics that a model offers. Whether it has one is only found out when somebody asks for that one.

    questions: for each statistic, a function whose result is true if the model has it.
    """

    def __init__(self, questions: Mapping[str, Callable[[], object]]) -> None:
        self._questions = questions

    def __contains__(self, statistic: object) -> bool:
        return statistic in self._questions and bool(self._questions[str(statistic)]())

    def __iter__(self) -> Iterator[str]:
        return filter(self.__contains__, self._questions)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __or__(self, more: Set[object]) -> Offered:
        return Offered({**self._questions, **{str(statistic): lambda: True for statistic in more}})

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> frozenset[Any]:  # what `&` and `-` make
        return frozenset(it)


def check_needs(
    owner: str,
    needs: frozenset[str],
    offers: Set[str],
    model: str,
    why: Callable[[str], str | None] = lambda need: None,
    instead: str = "",
) -> None:
    """Raise SettingError for an unknown need, and UnsupportedError for one that `model` does not offer. `why` gives the
    reason, if known, and `instead` says what to do instead."""
    for need in sorted(needs):
        if need not in STATISTICS:
            raise SettingError(f"{owner}.needs: {unknown('statistic', need, STATISTICS)}")
        if need not in offers:
            reason = why(need)
            lacks = "does not have it" if reason is None else f"does not have it: {reason}"
            raise UnsupportedError(
                f"{owner} needs {STATISTICS[need]}. {model} {lacks}; it offers: "
                f"{', '.join(sorted(offers)) or 'nothing'}. {instead}".rstrip()
            )


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
    def early_attention(self) -> VisionAttention:
        """The attention of the strategy's `early_layer`."""
        return self._declared("early_attention")

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
        statistics = {name: _laid_out(value, layout) for name, value in self.statistics.items()}
        for name in ("kept_in_tower", "kept_before_tower"):
            if name in statistics:
                statistics[name] = statistics[name].of_part(index)
        return index, VisualTokens(self.features[index], layout, self.image, statistics)

    def of_left(self, index: Int[Tensor, " left"], features: Float[Tensor, "left width"]) -> VisualTokens:
        """Return the tokens that are left, with their current features. What the tower left of the whole image is no
        longer among the statistics. Tokens of a smaller version are those of an image of that size."""
        if (shrunk := self.statistics.get("shrunk")) is not None:
            others = {name: value for name, value in self.statistics.items() if name != "shrunk"}
            small, left = VisualTokens(features, shrunk.layout, self.image, others), len(index) < len(shrunk.kept)
            return small.of_left(torch.searchsorted(shrunk.kept, index), features) if left else small
        layout = of_left(self.layout, index)
        left = {name: value for name, value in self.statistics.items() if not isinstance(value, KeptInTower)}
        statistics = {name: _laid_out(value, layout) for name, value in left.items()}
        return VisualTokens(features, layout, self.image, statistics)

    def _declared(self, name: str) -> Any:
        return declared(name, name, self.statistics.get(name))


def _laid_out(statistic: Any, layout: Layout) -> Any:
    return statistic.with_layout(layout) if isinstance(statistic, VisionAttention) else statistic


def declared(name: str, need: str, value: Declared | None) -> Declared:
    """Return what `tokens.name` reads. Raises PruningError without it: the strategy has not declared the `need`."""
    if value is None:
        raise PruningError(
            f'tokens.{name} is not among the strategy\'s needs. Add "{need}" to them, for instance:\n'
            f'    needs = frozenset({{"{need}"}})'
        )
    return value
