"""Which visual tokens of an encoded image are kept: as many as vLLM has reserved places for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.encoded import EncodedImage
from tokenprune.engine.select import checked_selection
from tokenprune.selection import Selection
from tokenprune.serving.vllm.metrics import KeptFile, SelectionClock
from tokenprune.serving.vllm.processor.item import PrunedItem
from tokenprune.serving.vllm.settings import Budget, Settings
from tokenprune.strategy import Strategy
from tokenprune.tokens import Layout, VisualTokens
from tokenprune.tokens.shrunk import Shrunk, stretched
from tokenprune.tokens.tower import KeptInTower

logger = logging.getLogger("vllm.tokenprune")  # below vLLM's own, to share its settings


class ImageSelector:
    """Selects the visual tokens of encoded images, as many as their prompts have placeholder tokens for.

    width: that of a visual token's features; any further columns are kept with it (DeepStack).
    n_summed: how many side-by-side parts of this width sum to the features; all are merged alike.
    reports: whether this process records what is kept and how long it took; one of several ranks does.
    """

    def __init__(self, settings: Settings, width: int, n_summed: int = 1, reports: bool = True) -> None:
        self.settings, self._width, self._n_summed = settings, width, n_summed
        self._clock = SelectionClock() if reports else None
        self.file = KeptFile(settings.record) if reports and settings.record is not None else None
        self._filled = False

    def select(
        self, features: Float[Tensor, "visual columns"], image: EncodedImage, asked: Budget | None, n_kept: int
    ) -> tuple[Float[Tensor, "kept columns"], Int[Tensor, " kept"]]:
        """The features, after merging, and the indices of the `n_kept` tokens kept of an image or part, given the
        budget of its request."""
        strategy = self.settings.strategy_at(asked)
        if strategy is None:
            return features, torch.arange(len(features), device=features.device)
        with self._clock.one_image() if self._clock is not None else nullcontext():
            return self._pruned(strategy, features, image, n_kept)

    def record(self, item: PrunedItem, kept: Int[Tensor, " kept"]) -> None:
        """Record which visual tokens of an image or video were kept, if requested."""
        if self.file is not None:
            self.file.write(item.key, item.n_visual, kept)

    def _pruned(
        self, strategy: Strategy, features: Float[Tensor, "visual columns"], image: EncodedImage, n_kept: int
    ) -> tuple[Float[Tensor, "kept columns"], Int[Tensor, " kept"]]:
        merged = self._width * self._n_summed
        # A copy, as in transformers: in-place changes by a strategy must not reach the model.
        seen = features[:, :merged].unflatten(-1, (self._n_summed, self._width)).sum(1)
        tokens = VisualTokens(seen, image.layout, 0, image.statistics)
        left = left_before_tower(tokens)
        try:
            selection = checked_selection(strategy, tokens)
        except Exception:  # which would end the engine and everyone's requests
            if bool(tokens.features.isfinite().all()):
                raise
            logger.warning(
                "The features of an image hold NaN or infinity, from which %s cannot select: its request is answered "
                "from the first tokens that do not. If the pixels are numbers, serve with --dtype bfloat16 or float32.",
                type(strategy).__name__,
            )
            kept = left[finite_first(tokens.features[left], n_kept)]
            # NaN in a KV block would corrupt the next request that uses it.
            return features[kept].nan_to_num(0.0, 0.0, 0.0), kept
        rows = features[selection.kept]
        if selection.merged is not None:
            rows[:, :merged] = selection.merged.apply(features[:, :merged], selection.kept)
        missing = n_kept - len(selection.kept)
        if missing == 0:
            return rows, selection.kept
        if not self._filled:
            self._filled = True
            logger.warning(
                "%s kept fewer visual tokens than its budget. In vLLM, an image has exactly that many, so the dropped "
                "tokens with the highest scores were added, or the first ones if there are no scores.",
                type(strategy).__name__,
            )
        extra = best_dropped(selection, missing, left)
        kept, order = torch.cat([selection.kept, extra]).sort()
        return torch.cat([rows, features[extra]])[order], kept


def finite_first(features: Float[Tensor, "visual width"], count: int) -> Int[Tensor, " count"]:
    """The first `count` tokens without NaN or infinity, in order; if there are fewer, the first others too."""
    return features.isfinite().all(-1).int().argsort(descending=True, stable=True)[:count].sort().values


def best_dropped(selection: Selection, count: int, left: Int[Tensor, " left"]) -> Int[Tensor, " count"]:
    """The `count` dropped tokens with the highest scores among those `left` before the tower; the first ones if there
    are no scores."""
    dropped = left[~torch.isin(left, selection.kept)]
    scores = torch.zeros(len(dropped), device=left.device) if selection.scores is None else selection.scores[dropped]
    return dropped[scores.float().argsort(descending=True, stable=True)[:count]]


def left_before_tower(tokens: VisualTokens) -> Int[Tensor, " left"]:
    """The tokens that were encoded."""
    before = tokens.statistics.get("kept_before_tower") or tokens.statistics.get("shrunk")
    return torch.arange(tokens.n_visual, device=tokens.features.device) if before is None else before.kept


def spread(
    features: Float[Tensor, "encoded columns"], image: EncodedImage, item: PrunedItem
) -> tuple[Float[Tensor, "visual columns"], EncodedImage]:
    """A part of an item as it was passed, given its smaller version; the features of tokens whose places that does not
    take are zeros."""
    if item.shrunk is None:
        return features, image
    height, width, _, _, *size = item.shrunk
    whole = Layout.raster((1, height, width))
    shrunk = Shrunk(stretched(whole, image.layout).to(features.device), image.layout, (size[0], size[1]))
    rows = features.new_zeros(whole.n_visual, features.shape[1]).index_copy(0, shrunk.kept, features)
    return rows, replace(image, layout=whole, statistics={**image.statistics, "shrunk": shrunk})


def with_left(images: Sequence[EncodedImage], item: PrunedItem, device: torch.device) -> list[EncodedImage]:
    """The parts of an item that were encoded, with what was left of each before the tower, on the features' device."""
    left = item.left_by_part()
    if left is None:
        return [*images]
    kept = [KeptInTower(torch.tensor(index, device=device), n) for index, n in zip(left, item.parts, strict=True)]
    return [
        replace(image, statistics={**image.statistics, "kept_before_tower": before})
        for image, before in zip(images, kept, strict=True)
    ]
