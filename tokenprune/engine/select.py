"""Asks the strategy which visual tokens of each image to keep, and enforces its budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from tokenprune.encoded import EncodedImage, miscounted
from tokenprune.errors import PruningError
from tokenprune.report import ImageReport
from tokenprune.selection import Merge, Selection, StageReport, split
from tokenprune.sequence.packing import Packing, PromptTokens, pack
from tokenprune.sequence.position_ids import compact_ids, shrunk_ids
from tokenprune.strategy import Strategy
from tokenprune.strategy.base import check_is_selection, strategy_call, valid_budget
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.shrunk import Shrunk
from tokenprune.tokens.tower import KeptInTower
from tokenprune.tokens.visual import VisualTokens


@dataclass(frozen=True, eq=False)
class ImageSelection:
    """One image in one row of the batch: the columns of its visual tokens, the last of them, which are kept, and its
    smaller version, if that was encoded."""

    row: int
    last: int
    columns: Int[Tensor, " visual"]
    modality: str
    layout: Layout
    selection: Selection
    in_tower: tuple[StageReport, ...] = ()
    shrunk: Shrunk | None = None

    @property
    def encoded(self) -> Layout:
        """The layout of what was encoded: the image, or its smaller version."""
        return self.layout if self.shrunk is None else self.shrunk.layout

    def report(self, ids: Real[Tensor, "*components batch length"]) -> ImageReport:
        kept, merged = self.selection.kept, self.selection.merged
        return ImageReport(
            self.row,
            self.modality,
            self.layout,
            kept,
            self.selection.scores,
            ids[..., self.row, self.columns[kept]],
            None if merged is None else merged.detach(),
            in_tower=self.in_tower,
            steps=self.selection.steps,
            shrunk=self.shrunk,
        )


def merge_features(
    features: Float[Tensor, "batch length width"], merges: Iterable[tuple[int, Tensor, Selection]]
) -> Float[Tensor, "batch length width"]:
    """The features after each selection has merged its dropped tokens into kept ones; the same tensor if none does.

    merges: for each selection, the row and columns of the tokens it selects from, and the selection itself.
    """
    result = features
    for row, columns, selection in merges:
        if selection.merged is not None:
            result = features.clone() if result is features else result
            result[row, columns[selection.kept]] = selection.merged.apply(features[row, columns], selection.kept)
    return result


def merge_dropped(
    embeds: Float[Tensor, "batch length width"], chosen: Sequence[ImageSelection]
) -> Float[Tensor, "batch length width"]:
    """The embeddings of a prompt after the images' selections have merged dropped tokens into kept ones."""
    return merge_features(embeds, [(image.row, image.columns, image.selection) for image in chosen])


def report_images(chosen: Sequence[ImageSelection], ids: Real[Tensor, "*components batch length"]) -> list[ImageReport]:
    """The report of every image, given the position IDs of the prompt."""
    return [image.report(ids) for image in chosen]


def changes_any(chosen: Sequence[ImageSelection]) -> bool:
    """Whether any image loses a visual token, or has one merged into another."""
    parts = (image.selection for image in chosen)
    return any(part.merged is not None or len(part.kept) < part.n_visual for part in parts)


def choose(
    strategy: Strategy,
    embeds: Float[Tensor, "batch length width"],
    prompt: PromptTokens,
    images: Mapping[str, Sequence[EncodedImage]],
) -> list[ImageSelection]:
    """The selection of every image, in reading order.

    images: the images of each modality, once per use; where `prompt.image_starts` marks the columns at which images
        start, their tiles, each encoded as if it were an image.

    Raises PruningError if images and columns do not match, or if the strategy breaks its contract.
    """
    located = [place for modality in prompt.visual for place in _locate(prompt, modality, images[modality])]
    chosen: list[ImageSelection] = []
    selections: dict[int, Selection] = {}  # beams repeat an image: it is selected from once
    for seen in sorted(located, key=lambda seen: (seen.row, seen.first)):
        image, layout = seen.image, seen.image.layout
        if id(image) not in selections:
            statistics = image.statistics_on(embeds.device)
            tokens = VisualTokens(embeds[seen.row, seen.columns], layout, len(selections), statistics)
            selections[id(image)] = _select_once(strategy, image, tokens)
        selection = selections[id(image)]
        in_tower = tuple(stage for kept in kept_by_tower(image.statistics) for stage in kept.stages)
        small, place = image.statistics.get("shrunk"), (seen.row, seen.last, seen.columns, seen.modality, layout)
        smaller = None if small is None or small.layout.n_visual == layout.n_visual else small
        chosen.append(ImageSelection(*place, selection, in_tower, smaller))
    return chosen


@dataclass(frozen=True)
class _LocatedImage:
    """An image, its row of the batch, and the columns of its visual tokens, `first` to `last`."""

    row: int
    first: int
    last: int
    columns: Int[Tensor, " visual"]
    modality: str
    image: EncodedImage


def _locate(prompt: PromptTokens, modality: str, images: Sequence[EncodedImage]) -> Iterator[_LocatedImage]:
    """The images of a modality, in the order in which they were passed."""
    rows, places, columns = prompt.locate(modality)
    counts = [image.layout.n_visual for image in images]
    if sum(counts) != len(rows):
        raise miscounted(modality, len(rows), counts)
    if not images:  # a batch of text may come with pixels of no image
        return
    if (starts := prompt.image_starts[modality]) is not None:
        firsts = list(accumulate(counts[:-1], initial=0))
        images = join_tiles(images, starts[rows, places][firsts].tolist())
        counts = [image.layout.n_visual for image in images]
    parts = zip(rows.split(counts), places.split(counts), columns.split(counts), strict=True)
    for image, (in_rows, at, column) in zip(images, parts, strict=True):
        row, first, last = int(in_rows[0]), int(at[0]), int(at[-1])
        if in_rows[-1] != row:
            raise PruningError(
                "the placeholder tokens of one image are spread over two rows of the batch. Prepare text and images "
                "together, with the model's own processor."
            )
        yield _LocatedImage(row, first, last, column, modality, image)


def _select_once(strategy: Strategy, image: EncodedImage, tokens: VisualTokens) -> Selection:
    """The strategy's selection, remembered for further calls with the image.

    Frees the tower's attention: `generate` holds the image until it has answered, and one layer's queries and keys are
    larger than what a small language model then caches of the image. Raises PruningError if another strategy has
    already selected, or if the image was encoded for one that reads something else.
    """
    if image.selected is None:
        image.check_statistics_for(strategy)
        with explained_nan(strategy, f"image {tokens.image}", tokens.features):
            selection = checked_selection(strategy, tokens)
        kept = {name: value for name, value in image.statistics.items() if not name.endswith("attention")}
        if len(kept) < len(image.statistics):
            image.selected, image.statistics = (strategy, selection), kept
        return selection
    by, selection = image.selected
    if by != strategy:
        raise PruningError(
            f"these images were encoded for {by}, which has already selected from their tokens. Encode them again to "
            f"prune them with {strategy}."
        )
    return selection


def renumbered(
    ids: Real[Tensor, "*components batch length"],
    dropped: Bool[Tensor, "batch length"],
    real: Bool[Tensor, "batch length"],
    chosen: Sequence[ImageSelection],
    above_time: bool,
) -> Real[Tensor, "*components batch length"]:
    """Compact position IDs. Where they have several components, a smaller version that stays whole gets those that the
    model gives to an image of that size, given whether it `continues_above_time`."""
    shrunk = [(image.row, image.columns, image.layout, image.shrunk) for image in chosen if image.shrunk is not None]
    counted = compact_ids(ids, dropped, real)
    if ids.ndim == 2:
        return counted
    pruned = {image.row for image in chosen if image.shrunk and len(image.selection.kept) < len(image.shrunk.kept)}
    for row in {row for row, *_ in shrunk} - pruned:
        counted[-3:, row] = shrunk_ids(ids[-3:], [part for part in shrunk if part[0] == row], above_time)[:, row]
    return counted


@contextmanager
def explained_nan(strategy: Strategy, where: str, features: Tensor) -> Iterator[None]:
    """Raise PruningError in place of whatever is raised inside, if the features that the strategy selects from hold NaN
    or infinity. Nothing is read from a GPU until then."""
    try:
        yield
    except Exception as error:
        if bool(features.isfinite().all()):
            raise
        raise PruningError(
            f"{type(strategy).__name__} cannot select visual tokens of {where} of the call: their features hold "
            f"NaN or infinity. Check pixel_values.isnan().any(); if the pixels are numbers, load the model in bfloat16 "
            f"or float32."
        ) from error


def prune_prompt(prompt: PromptTokens, dropped: Bool[Tensor, "batch new"], chosen: Sequence[ImageSelection]) -> Packing:
    """Which of the new columns are left. Padding is dropped too where every row allows it, except for `n_trailing`.

    Raises PruningError for a row whose mask hides everything that is left.
    """
    keep, counts = prompt.real & ~dropped, prompt.n_real
    for image in chosen:
        counts[image.row] -= image.selection.n_visual - len(image.selection.kept)
    if prompt.pads_visual:  # the mask hides visual tokens, which must not be counted twice
        counts = keep.sum(1).tolist()
    for row, (n_left, n_real) in enumerate(zip(counts, prompt.n_real, strict=True)):
        if n_left == 0 and (n_real or len(counts) == 1):
            raise PruningError(
                f"row {row} of attention_mask masks out every token that is left after pruning. Unmask the text of the "
                f"prompt, or keep more visual tokens."
            )
    return pack(keep, counts, prompt.n_trailing)


def join_tiles(tiles: Sequence[EncodedImage], starts: Sequence[bool]) -> list[EncodedImage]:
    """The images that tiles belong to; a tile marked in `starts` begins an image. Images of the same tiles, as beams
    have them, are the same object."""
    groups: list[tuple[EncodedImage, ...]] = []
    for tile, first in zip(tiles, starts, strict=True):
        if first or not groups:
            groups.append((tile,))
        else:
            groups[-1] += (tile,)
    images = {group: EncodedImage.concat(group) for group in dict.fromkeys(groups)}
    return [images[group] for group in groups]


def checked_selection(strategy: Strategy, tokens: VisualTokens) -> Selection:
    """What the strategy selects. Raises PruningError if it exceeds its budget or keeps what the tower has dropped."""
    tiled = tokens.layout.tiles is not None and strategy.selects_per_tile
    name, n_visual = type(strategy).__name__, len(tokens.features)
    allowed = valid_budget(strategy, n_visual)
    with strategy_call(strategy, "select", tokens.features):
        selection = select_per_tile(strategy, tokens) if tiled else strategy.select(tokens)
    check_is_selection(strategy, "select", selection, n_visual)
    if len(selection.kept) > allowed:
        raise PruningError(
            f"{name}.select kept {len(selection.kept)} visual tokens; its budget is {allowed} of {n_visual}. "
            f"Keep self.budget(tokens.n_visual) of them."
        )
    for before in kept_by_tower(tokens.statistics):
        if selection.kept is not before.kept and not bool(torch.isin(selection.kept, before.kept).all()):
            raise PruningError(
                f"{name}.select kept visual tokens that were dropped in the tower or before it. Choose from "
                f"tokens.kept_in_tower.kept, or from tokens.kept_before_tower.kept."
            )
    return selection


def kept_by_tower(statistics: Mapping[str, Any]) -> list[KeptInTower]:
    """What was left of an image before and in the tower, as far as the strategy prunes there."""
    return [statistics[name] for name in ("kept_before_tower", "kept_in_tower") if name in statistics]


def select_per_tile(strategy: Strategy, tokens: VisualTokens) -> Selection:
    """Every tile's own selection, with shares of the image's budget that add up to it exactly."""
    assert tokens.layout.tiles is not None
    parts = [tokens.of_tile(tile) for tile in tokens.layout.tiles.unique().tolist()]
    budgets = split(strategy.budget(tokens.n_visual), [part.n_visual for _, part in parts])
    scores = tokens.features.new_full((tokens.n_visual,), torch.nan, dtype=torch.float32)
    chosen: list[tuple[Tensor, Selection]] = []
    for (index, part), count in zip(parts, budgets, strict=True):
        selection = checked_selection(strategy.for_part(max(count, 1), part.n_visual), part)
        if selection.scores is not None:
            scores[index] = selection.scores.float()
        if count:  # a tile without a share is only scored
            chosen.append((index, selection))
    kept = torch.cat([index[selection.kept] for index, selection in chosen]).sort().values
    merges = [
        selection.merged.in_image(index, torch.searchsorted(kept, index[selection.kept]))
        for index, selection in chosen
        if selection.merged is not None
    ]
    scored = not bool(scores.isnan().any())
    return Selection(kept, tokens.n_visual, scores if scored else None, Merge.concat(merges) if merges else None)
