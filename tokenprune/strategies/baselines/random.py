"""Random selection, a baseline."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import torch

from tokenprune.checks import is_integer
from tokenprune.errors import SettingError
from tokenprune.selection import Selection, split
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, Strategy
from tokenprune.tokens import VisualTokens
from tokenprune.tokens.cells import rank_within


@register_strategy("random")
@dataclass(frozen=True)
class Random(Strategy):
    """Keeps visual tokens drawn uniformly without replacement.

    The draw depends only on `seed` and the image: an image keeps the same tokens in every call, batch and beam and on
    every device, and different images keep different tokens, as do the tiles of an image with budget_per="tile".
    """

    record: ClassVar[Record] = Record(
        keeps="a random draw, seeded by the image",
        source="our own",
        published={"seed": 0},
        waits=(4, 3),
        unmeasured="is a baseline, and so in every part",
    )

    needs: ClassVar[frozenset[str]] = frozenset({"pixels"})

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_integer(self.seed) or self.seed < 0:
            raise SettingError(f"Random: seed={self.seed!r} is not a seed; write an integer of 0 or more.")

    @property
    def selects_per_tile(self) -> bool:
        """False: one draw serves all tiles, so that no two keep the same places by construction."""
        return False

    def select(self, tokens: VisualTokens) -> Selection:
        image = zlib.crc32(tokens.pixels.float().cpu().numpy().tobytes(), self.seed % 2**32)
        # CPU generators give the same draw on every device.
        generator = torch.Generator("cpu").manual_seed(image)
        order = torch.randperm(tokens.n_visual, generator=generator, device="cpu")
        n_kept, tiles = self.budget(tokens.n_visual), tokens.layout.tiles
        if self.budget_per == "tile" and tiles is not None:
            tiles = tiles.cpu()
            shares = torch.tensor(split(n_kept, tiles.bincount().tolist()), device="cpu")
            order = (rank_within(-order.double(), tiles) >= shares[tiles]).int().argsort(stable=True)
        return Selection.first(order.to(tokens.features.device), n_kept)
