"""One call of a tower that takes a batch of tiles, and what is left of the tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tokenprune.adapters.towers.attention import Projected
from tokenprune.engine.tower.call import TowerCall
from tokenprune.engine.tower.tiles import Tile, merged_patches, patches_of, spread
from tokenprune.selection import Selection


@dataclass(frozen=True, eq=False)
class BatchCut:
    """What is left of a batch from some encoder layer on.

    patches: the patches left of every tile, which follow the prefix tokens in the hidden states.
    real: which of them are not padding; None if there is no padding.
    sizes: how many patches each of them stands for; None if none has been merged.
    n_all: how many patches a whole tile has.
    """

    patches: Int[Tensor, "tiles left"]
    real: Bool[Tensor, "tiles left"] | None
    sizes: Float[Tensor, "tiles left"] | None
    n_all: int

    def mask(self, hidden: Float[Tensor, "tiles tokens width"]) -> Tensor | None:
        """The (tiles, 1, tokens, tokens) mask to add to the attention logits; None if there is nothing to add."""
        if self.real is None and self.sizes is None:
            return None
        n_tiles, n_tokens, _ = hidden.shape
        keys = hidden.new_zeros(n_tiles, n_tokens)
        patches = keys[:, n_tokens - self.patches.shape[1] :]
        if self.sizes is not None:
            patches += self.sizes.log().to(hidden)
        if self.real is not None:
            patches.masked_fill_(~self.real.to(hidden.device), torch.finfo(hidden.dtype).min)
        return keys[:, None, None].expand(-1, -1, n_tokens, -1)

    def without(self, whole: Float[Tensor, "tiles all width"]) -> Float[Tensor, "tiles left width"]:
        """The rows of the patches that are left; in place of padding, any row of the tile."""
        index = self.patches[..., None].expand(-1, -1, whole.shape[2])
        return whole.gather(1, index.to(whole.device))

    def whole(self, hidden: Float[Tensor, "tiles tokens width"]) -> Float[Tensor, "tiles all width"]:
        """The hidden states with every patch in its original place, and zeros for dropped ones."""
        n_prefix = hidden.shape[1] - self.patches.shape[1]
        n_tokens, places = n_prefix + self.n_all, n_prefix + self.patches
        if self.real is not None:
            places = places.masked_fill(~self.real, n_tokens)  # an extra place for all padding
        whole = hidden.new_zeros(len(hidden), n_tokens + (self.real is not None), hidden.shape[2])
        whole[:, :n_prefix] = hidden[:, :n_prefix]
        index = places[..., None].expand(-1, -1, hidden.shape[2]).to(hidden.device)
        return whole.scatter_(1, index, hidden[:, n_prefix:])[:, :n_tokens]


class BatchCall(TowerCall):
    """One call of the tower.

    patches: the patches of each visual token of a tile; None if each token has one.
    cut: what the hidden states hold; None as long as that is everything, in raster order. Once something is dropped,
        the patches of a visual token follow one another.
    mask: the attention mask of the layer that runs.
    entered: what each encoder layer was given, if that was not everything.
    """

    def __init__(self, patches: Int[Tensor, "visual patches"] | None, n_prefix: int, whole_images: bool) -> None:
        super().__init__()
        self.patches, self._n_prefix, self._whole_images = patches, n_prefix, whole_images
        self.cut: BatchCut | None = None
        self.mask: Tensor | None = None
        self.entered: dict[int, BatchCut] = {}
        self._kept: Sequence[Selection | None] = ()

    @property
    def patches_per_token(self) -> int:
        """How many patches a visual token has; all have equally many."""
        return 1 if self.patches is None else self.patches.shape[1]

    def split(self, projected: Projected) -> Iterator[tuple[Tile, Projected]]:
        n_tiles, _, n_tokens, _ = projected[0].shape
        device, n_prefix = projected[0].device, self._n_prefix
        if not self.tiles:
            n_visual = (n_tokens - n_prefix) // self.patches_per_token
            n_image = n_visual if self._whole_images else None
            self.tiles = [Tile(n_visual, n_image, device) for _ in range(n_tiles)]
        if self.patches_per_token > 1 and self.cut is None:
            prefix = torch.arange(n_prefix, device=device)
            order = torch.cat([prefix, n_prefix + self._of_tokens(self.tiles[0].left)])
            rows = (part.transpose(1, 2)[:, order] for part in projected)  # all heads of a token are adjacent
            queries, keys, values = (part.transpose(1, 2) for part in rows)
            projected = queries, keys, values
        for i, tile in enumerate(self.tiles):
            n_left = n_prefix + len(tile.left) * self.patches_per_token
            queries, keys, values = (part[i, :, :n_left] for part in projected)
            yield tile, (queries, keys, values)

    def keep(self, kept: Sequence[Selection | None]) -> None:
        self._kept = kept

    def advance(self, hidden: Float[Tensor, "tiles tokens width"]) -> Float[Tensor, "tiles left width"]:
        if not self._kept:
            return hidden
        n_prefix, per_token, device = self._n_prefix, self.patches_per_token, hidden.device
        selections, self._kept = [selection for selection in self._kept if selection is not None], ()
        still = [self._of_tokens(tile.left.to(device)) for tile in self.tiles]
        counts = torch.tensor([len(tile) for tile in still], device="cpu")
        real = torch.arange(max(map(len, still)), device="cpu") < counts[:, None]
        padded = min(map(len, still)) < real.shape[1]
        sizes = [spread(tile.sizes.to(device), per_token) for tile in self.tiles]
        merged = any(tile.merged_from is not None for tile in self.tiles)
        pruned = hidden.new_zeros(len(hidden), n_prefix + real.shape[1], hidden.shape[2])
        pruned[:, :n_prefix] = hidden[:, :n_prefix]
        for i, selection in enumerate(selections):
            patches = hidden[i, n_prefix:]
            if selection.merged is None:
                patches = patches[self._places(selection.kept.to(device))]
            else:
                if self.cut is None and self.patches is not None:
                    patches = patches[self.patches.flatten().to(device)]
                patches = merged_patches(selection, patches[: selection.n_visual * per_token])
            pruned[i, n_prefix : n_prefix + len(patches)] = patches
        self.cut = BatchCut(
            pad_sequence(still, batch_first=True),
            real.to(device) if padded else None,
            pad_sequence(sizes, batch_first=True, padding_value=1.0).to(device) if merged else None,
            self.tiles[0].n_visual * per_token,
        )
        return pruned

    def _of_tokens(self, tokens: Int[Tensor, " kept"]) -> Int[Tensor, " patches"]:
        """The patches of visual tokens, within the tile."""
        return tokens if self.patches is None else self.patches.to(tokens.device)[tokens].flatten()

    def _places(self, tokens: Int[Tensor, " kept"]) -> Int[Tensor, " patches"]:
        """The places of these patches within the hidden states."""
        return self._of_tokens(tokens) if self.cut is None else patches_of(tokens, self.patches_per_token)
