"""Images of any shape that are padded to the same number of patches."""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.tokens.layout import Layout, square_means


def padded_squares(rows: int, columns: int, side: int) -> Layout:
    """The layout of an image whose first rows x columns patches are real, with one visual token for each side x side
    square of them. Raises PruningError for patches that do not fill squares."""
    if rows % side or columns % side:
        raise PruningError(
            f"an image of {rows} x {columns} patches does not divide into squares of {side} x {side}, which become "
            f"visual tokens, so it is unknown which patches they show. Resize it as the model's processor does, or "
            f"remove the patch."
        )
    grid = (1, rows // side, columns // side)
    return Layout((grid,), to_tokens=partial(real_square_means, rows=rows, columns=columns, side=side))


def real_square_means(
    values: Float[Tensor, "one patches"], rows: int, columns: int, side: int
) -> Float[Tensor, " visual"]:
    """Average every square of the real patches."""
    return square_means(values[:, : rows * columns], rows, columns, side)
