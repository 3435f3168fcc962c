"""What the last pruned forward did."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.tokens import Grid3


@dataclass(frozen=True, eq=False, repr=False)
class ImageReport:
    """One image of the batch.

    row: which sample of the batch it belongs to. Beam search and num_return_sequences repeat samples, so the images
        of a repeated sample are there once per repetition.
    grid: (t, h, w) of its visual tokens.
    kept: sorted indices within the image's visual tokens.
    scores: importance score of every visual token; None if the strategy gives none.
    position_ids: the position IDs that the kept tokens got.
    """

    row: int
    grid: Grid3
    kept: Int[Tensor, " kept"]
    scores: Float[Tensor, " visual"] | None
    position_ids: Int[Tensor, "*components kept"]

    @property
    def n_visual(self) -> int:
        frames, height, width = self.grid
        return frames * height * width

    @property
    def n_kept(self) -> int:
        return len(self.kept)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.grid if self.grid[0] > 1 else self.grid[1:]))
        return f"ImageReport(row={self.row}, {size} grid, kept {self.n_kept} of {self.n_visual} visual tokens)"


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The last forward that contained visual tokens."""

    images: list[ImageReport]

    @property
    def n_visual(self) -> int:
        return sum(image.n_visual for image in self.images)

    @property
    def n_kept(self) -> int:
        return sum(image.n_kept for image in self.images)

    def __repr__(self) -> str:
        share = self.n_kept / self.n_visual
        head = f"Report(kept {self.n_kept} of {self.n_visual} visual tokens, {share:.1%} retention)"
        return "\n".join([head, *(f"  {image!r}" for image in self.images)])
