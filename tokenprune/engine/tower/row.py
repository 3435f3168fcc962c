"""One call of a tower that takes the patches of all images in one row, and what is left of the row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.adapters.towers.attention import Projected
from tokenprune.adapters.towers.layers import RowLayers
from tokenprune.adapters.towers.row import Row
from tokenprune.engine.tower.call import TowerCall
from tokenprune.engine.tower.tiles import Tile, merged_patches, patches_of, spread
from tokenprune.selection import Selection


class RowCut:
    """What is left of a row from some encoder layer on.

    kept: which of the call's visual tokens are left.
    patches: the rows of the layers' hidden states that are left: the patches of these tokens, and prefix tokens.
    sizes: how many visual tokens each of the tokens left stands for; None if none has been merged.
    """

    def __init__(self, row: Row, kept: Bool[Tensor, " visual"], sizes: Float[Tensor, " left"] | None = None) -> None:
        in_layers = row.in_layers
        self.kept, self.sizes, self.n_all = kept, sizes, len(in_layers)
        self._n_prefixes = row.n_prefix * len(row.tiles)
        still = kept[in_layers]
        if self._n_prefixes:
            still |= in_layers < 0
        self.patches = still.nonzero()[:, 0]
        self._of_patches = in_layers[self.patches]
        # Meaningful where the patches of a visual token are adjacent, and no prefix token is between them.
        self._tokens = kept[in_layers.unique_consecutive()].nonzero()[:, 0]
        self._ends = pad(still.cumsum(0), (1, 0))  # entry n: how many of the first n patches are left
        self._cut: dict[tuple[str, int], tuple[Any, Any]] = {}  # by identity: all layers get the same arguments

    @cached_property
    def by_token(self) -> Int[Tensor, " patches"]:
        """The places of the patches that are left, one visual token after the other."""
        return self._sorted[self._n_prefixes :]

    @property
    def prefixes(self) -> Int[Tensor, " prefixes"]:
        """The places of the prefix tokens, tile after tile."""
        return self._sorted[: self._n_prefixes]

    @cached_property
    def _sorted(self) -> Int[Tensor, " rows"]:
        """Prefix tokens have the lowest number, so they are first."""
        return self._of_patches.argsort(stable=True)

    @cached_property
    def bias(self) -> Float[Tensor, " patches"] | None:
        """What is added to the logits of each patch's key: the logarithm of how many patches it stands for."""
        if self.sizes is None:
            return None
        order = self.by_token.to(self.sizes.device)
        logs = spread(self.sizes.log(), len(order) // len(self.sizes))
        return logs.new_zeros(len(self.patches)).index_copy(0, order, logs)

    def arguments(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a layer besides its hidden states, for the patches that are left."""
        cut = {name: self._once(name, value) for name, value in named.items() if name != "hidden_states"}
        if (given := cut.get("max_seqlen")) is not None:
            cut["max_seqlen"] = self._longest(given, cut["cu_seqlens"])
        return cut

    def forget(self) -> None:
        """Free the arguments that were cut: no further layer gets them."""
        self._cut.clear()

    def whole(self, value: Any) -> Any:
        """The layers' output for the patches that are left, or a merger's for their visual tokens, with zeros for the
        others. Looks into tuples and lists; anything else is returned as it is."""
        if isinstance(value, (tuple, list)):
            return type(value)(map(self.whole, value))
        if not isinstance(value, Tensor) or value.ndim < 2:
            return value
        for places, n_all in ((self.patches, self.n_all), (self._tokens, len(self.kept))):
            if value.shape[-2] == len(places) < n_all:
                result = value.new_zeros(*value.shape[:-2], n_all, value.shape[-1])
                return result.index_copy(-2, places.to(value.device), value)
        return value

    def _once(self, name: str, value: Any) -> Any:
        key = name, id(value)
        if key not in self._cut:
            self._cut[key] = value, self._shortened(name, value)
        return self._cut[key][1]

    def _longest(self, given: Any, ends: Int[Tensor, " segments_1"]) -> Any:
        """The length of the longest segment, as a number or tensor like `given`. Read once for all layers, because
        reading it waits for the device."""
        key = "max_seqlen", id(ends)
        if key not in self._cut:
            longest = ends.diff().max()
            self._cut[key] = ends, longest.to(given) if isinstance(given, Tensor) else type(given)(longest)
        return self._cut[key][1]

    def _shortened(self, name: str, value: Any) -> Any:
        """An argument of a layer, for the patches that are left."""
        if name == "cu_seqlens":
            return self._ends.to(value.device)[value.long()].unique_consecutive().to(value.dtype)
        if isinstance(value, tuple):
            return tuple(self._shortened(name, part) for part in value)
        if isinstance(value, Tensor) and value.ndim >= 2 and value.shape[-2] == self.n_all:
            patches = self.patches.to(value.device)
            shorter = value.index_select(-2, patches)
            return self._masking(shorter.index_select(-1, patches)) if name == "attention_mask" else shorter
        return value

    def _masking(self, mask: Float[Tensor, "one one left left"]) -> Float[Tensor, "one one left left"]:
        """The mask, with every key's bias added where patches may attend to the key."""
        return mask if self.bias is None else torch.where(mask == 0, self.bias.to(mask), mask)


class RowCall(TowerCall):
    """One call of the tower.

    row: the patches that the tower was given.
    cut: what the hidden states hold.
    following: what the next layer is to get; None if that is the same.
    entered: what each encoder layer was given, if that was not everything.
    rotation: the rotary embeddings of `layer`.
    """

    def __init__(self, row: Row, selections: list[Selection], between: RowLayers | None) -> None:
        """between: the layers between which more is dropped; None if nothing is."""
        super().__init__()
        self.row, self.selections = row, selections
        device = row.tokens.device
        masks = [
            torch.zeros(each.n_visual, dtype=torch.bool, device=device).index_fill(0, each.kept.to(device), True)
            for each in selections
        ]
        kept = torch.cat(masks)
        self.cut = RowCut(row, torch.ones_like(kept))
        self.following = RowCut(row, kept) if any(len(each.kept) < each.n_visual for each in selections) else None
        self.tiles = () if between is None else self._make_tiles(kept, between.whole_images)
        self.entered: dict[int, RowCut] = {}
        self.rotation: Any = None
        self._kept: Sequence[Selection | None] = ()

    @property
    def drops(self) -> bool:
        return self.following is not None or len(self.cut.patches) < self.cut.n_all or self.cut.sizes is not None

    @property
    def patches_per_token(self) -> int:
        """How many patches a visual token has; all have equally many."""
        return len(self.row.tokens) // len(self.cut.kept)

    def split(self, projected: Projected) -> Iterator[tuple[Tile, Projected | None]]:
        n_prefix, start = self.row.n_prefix, 0
        counts = [len(tile.left) * self.patches_per_token for tile in self.tiles]
        order = self.cut.by_token.to(projected[0].device)
        if n_prefix:
            prefixes = self.cut.prefixes.to(order.device).split(n_prefix)
            both = zip(prefixes, order.split(counts), strict=True)
            order = torch.cat([part for tile in both for part in tile])
        by_tile = [part[order].transpose(0, 1) for part in projected]
        for tile, count in zip(self.tiles, counts, strict=True):
            end = start + n_prefix + count
            queries, keys, values = (part[:, start:end] for part in by_tile)
            yield tile, (queries, keys, values) if count else None
            start = end

    def keep(self, kept: Sequence[Selection | None]) -> None:
        mask, start = torch.zeros_like(self.cut.kept), 0
        for tile in self.tiles:
            mask[start + tile.left.to(mask.device)] = True
            start += tile.n_visual
        merged = any(tile.merged_from is not None for tile in self.tiles)
        sizes = torch.cat([tile.sizes for tile in self.tiles]) if merged else None
        self.following, self._kept = RowCut(self.row, mask, sizes), kept

    def advance(self, hidden: Float[Tensor, "*one patches width"]) -> Float[Tensor, "*one left width"]:
        before, after = self.cut, self.following
        if after is None:
            return hidden
        places = torch.searchsorted(before.patches, after.patches)
        still = hidden.index_select(-2, places.to(hidden.device))
        if any(kept is not None and kept.merged is not None for kept in self._kept):
            still = self._merged(hidden, still)
        before.forget()
        self.cut, self.following, self._kept = after, None, ()
        return still

    def whole_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        whole = self.cut.whole
        attention = {name: whole(value) for name, value in call.get("attention", {}).items()}
        seen = {name: whole(self._in_rows(value)) for name, value in call.items() if isinstance(value, Tensor)}
        return {**call, **seen, "attention": attention}

    def real(self) -> list[Bool[Tensor, " patches"]]:
        tiles = self.cut.kept[self.row.in_tiles].split(self.row.tiles)
        if not self.row.n_prefix:
            return list(tiles)
        prefix = self.cut.kept.new_ones(self.row.n_prefix)
        return [torch.cat([prefix, tile]) for tile in tiles]

    def _in_rows(self, value: Tensor) -> Tensor:
        """Queries or keys of shape (patches, heads, width) as one row per patch; anything else as it is."""
        return value.flatten(1) if value.ndim == 3 and len(value) == len(self.cut.patches) > 1 else value

    def _make_tiles(self, kept: Bool[Tensor, " visual"], whole_images: bool) -> list[Tile]:
        per_token = self.patches_per_token
        sizes = [prod(grid) if whole_images else None for grid in self.row.images for _ in range(grid[0])]
        parts = kept.split([n_patches // per_token for n_patches in self.row.tiles])
        return [
            Tile(len(part), n_image, kept.device, None if bool(part.all()) else part.nonzero()[:, 0])
            for part, n_image in zip(parts, sizes, strict=True)
        ]

    def _merged(self, hidden: Tensor, left: Tensor) -> Tensor:
        """The hidden states that are `left`, with others of `hidden` merged into them as selected."""
        assert self.following is not None
        per_token, rows, device = self.patches_per_token, hidden.flatten(0, -2), hidden.device
        result, start, end = left.flatten(0, -2).clone(), 0, 0
        for selection, tile in zip(self._kept, self.tiles, strict=True):
            n_before = 0 if selection is None else selection.n_visual
            if selection is not None and selection.merged is not None:
                tokens = torch.arange(start, start + n_before, device=device)
                patches = rows[self.cut.by_token.to(device)[patches_of(tokens, per_token)]]
                means = merged_patches(selection, patches)
                kept = torch.arange(end, end + len(tile.left), device=device)
                result[self.following.by_token.to(device)[patches_of(kept, per_token)]] = means
            start, end = start + n_before, end + len(tile.left)
        return result.view(left.shape)
