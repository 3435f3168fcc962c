"""The encoded images of one vision tower call, with what the strategy reads of them: square tiles, crops beside a whole
image, or images that are one tile of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.adapters.layouts.crops import image_by_image
from tokenprune.adapters.towers import Tower
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.towers.from_config import tower_of_config
from tokenprune.tokens import Layout, VisionAttention

if TYPE_CHECKING:
    from tokenprune.serving.vllm.worker.model import PrunedModel


def tiled_images(
    model: PrunedModel, layouts: Sequence[Layout], n_encoded: Sequence[int], pixels: Sequence[Tensor] | Tensor | None
) -> list[EncodedImage]:
    """The encoded images of the tower call that has just been captured.

    n_encoded: how many tiles the tower encoded for each image, the layout's first, then padding.
    pixels: all tiles as they arrive, one by one; None if the images came as features.
    """
    needs, tower = model.settings.strategy.needs, tower_of_config(model.config)
    heads = model.capture.heads() if model.capture is not None and pixels is not None else None
    before = model.unprojected.tiles(sum(n_encoded)) if model.unprojected is not None and pixels is not None else None
    images = []
    for layout, (start, _) in zip(layouts, pairwise(accumulate(n_encoded, initial=0)), strict=True):
        tiles = slice(start, start + layout.n_tiles)
        statistics: dict[str, Any] = {}
        if heads is not None and model.capture is not None:
            queries, keys = (part[tiles] for part in heads)
            statistics["vision_attention"] = VisionAttention(queries, keys, model.capture.scale, tower.n_prefix, layout)
        if before is not None:
            statistics["tower_features"] = before[tiles]
        if pixels is not None and needs & {"pixels", "colors"}:
            statistics.update(
                image_statistics(needs, tower, torch.stack([model.normed(tile) for tile in pixels[tiles]]))
            )
        images.append(EncodedImage(layout, statistics))
    return images


def equal_tiles(
    model: PrunedModel, tile: Layout, features: Sequence[Tensor], pixels: Sequence[Tensor] | Tensor | None
) -> list[EncodedImage]:
    """The same for images of one or more tiles, all with the layout `tile`, as many as the image has features for."""
    counts = [len(rows) // tile.n_visual for rows in features]
    layouts = [tile if n == 1 else Layout.concat([tile] * n) for n in counts]
    return tiled_images(model, layouts, counts, pixels)


def images_of_crops(
    model: PrunedModel, layouts: Sequence[Layout], tiles: Mapping[str, Sequence[Any]]
) -> list[EncodedImage]:
    """The same for images that are crops and a whole, which may be larger.

    tiles: what the strategy reads of all wholes and then of all crops: their pixels, or their queries, keys and, with a
        resampler, the real patches and the shares of its visual tokens.
    """
    tower = tower_of_config(model.config)
    in_order = {name: iter(image_by_image(name, values, layouts, tower.n_prefix)) for name, values in tiles.items()}
    images = []
    for layout in layouts:
        read: dict[str, Any] = {name: tuple(islice(ones, layout.n_tiles)) for name, ones in in_order.items()}
        if "colors" in read:
            read["colors"] = tuple(tower.colors(torch.stack(read["colors"])))
        if model.capture is not None:
            queries, keys, *masks = map(torch.stack, zip(*read["vision_attention"], strict=True))
            attention = VisionAttention(queries, keys, model.capture.scale, tower.n_prefix, layout, *masks)
            read["vision_attention"] = attention
        images.append(EncodedImage(layout, read))
    return images


def images_of_any_size(
    model: PrunedModel,
    layouts: Sequence[Layout],
    heads: Iterable[tuple[Tensor, Tensor]] | None,
    pixels: Callable[[], Iterable[Tensor]] | None,
) -> list[EncodedImage]:
    """The same for images or frames that are one tile each, of any size.

    heads: queries and keys of each, (heads, patches, width); None if the strategy reads none.
    pixels: returns each as the tower's first layer sees it, (channels, height, width), and is called only if the
        strategy reads them; None if the images came as features.
    """
    needs, tower = model.settings.strategy.needs, tower_of_config(model.config)
    statistics: list[dict[str, Any]] = [{} for _ in layouts]
    if heads is not None and model.capture is not None:
        for read, layout, (queries, keys), real in zip(statistics, layouts, heads, model.real(layouts), strict=True):
            read["vision_attention"] = VisionAttention(
                queries[None], keys[None], model.capture.scale, tower.n_prefix, layout, real
            )
    if pixels is not None and needs & {"pixels", "colors"}:
        for read, image in zip(statistics, pixels(), strict=True):
            read.update(image_statistics(needs, tower, image[None]))
    return [EncodedImage(layout, read) for layout, read in zip(layouts, statistics, strict=True)]


def resampled_images(
    model: PrunedModel,
    layout: Layout,
    sizes: Sequence[int],
    pixels: Callable[[], Iterable[Tensor]],
    real: Bool[Tensor, "tiles patches"] | None = None,
) -> list[EncodedImage]:
    """The same for tiles that a resampler reads into visual tokens, each with the layout `layout`.

    sizes: how many patches each has; the tower's may be followed by padding. pixels: as in `images_of_any_size`.
    real: which patches are no padding, if that is among them.
    """
    needs, tower, capture = model.settings.strategy.needs, tower_of_config(model.config), cast(Any, model.capture)
    statistics: list[dict[str, Any]] = [{} for _ in sizes]
    if capture is not None:
        masks = [None] * len(sizes) if real is None else list(real)
        parts = zip(statistics, sizes, capture.by_tile(), masks, capture.shares(sizes, masks), strict=True)
        for read, size, heads, mask, shares in parts:
            queries, keys = (part[None, :, :size] for part in heads)
            read["vision_attention"] = VisionAttention(
                queries, keys, capture.scale, tower.n_prefix, layout, None if mask is None else mask[None], shares[None]
            )
    if needs & {"pixels", "colors"}:
        for read, image in zip(statistics, pixels(), strict=True):
            read.update(image_statistics(needs, tower, image[None]))
    return [EncodedImage(layout, read) for read in statistics]


def image_statistics(
    needs: frozenset[str], tower: Tower, tiles: Float[Tensor, "tiles channels height width"]
) -> dict[str, Any]:
    """What a strategy needs to see of the image itself, given its tiles as the tower gets them."""
    read = {}
    if "pixels" in needs:
        read["pixels"] = tuple(tiles)
    if "colors" in needs:
        read["colors"] = tuple(tower.colors(tiles))
    return read
