"""How ratios and counts become numbers of tokens, by hand."""

from __future__ import annotations

import pytest
import torch

from tokenprune import PruningError, SettingError
from tokenprune.selection import budget, n_reaching, split, tile_share


@pytest.mark.parametrize(
    ("n_visual", "keep_ratio", "keep", "expected"),
    [
        (10, 0.12, None, 1),  # 1.2
        (10, 0.18, None, 2),
        (10, 0.25, None, 3),  # half up
        (5, 0.01, None, 1),  # never none
        (576, 1.0, None, 576),
        (10, None, 4, 4),
        (3, None, 4, 3),
    ],
)
def test_a_budget(n_visual: int, keep_ratio: float | None, keep: int | None, expected: int) -> None:
    assert budget(n_visual, keep_ratio, keep) == expected


def test_a_budget_that_nobody_gave() -> None:
    with pytest.raises(SettingError, match="neither keep_ratio nor keep"):
        budget(10, None, None)


@pytest.mark.parametrize(
    ("n_visual", "n_image", "keep_ratio", "keep", "expected"),
    [
        (10, 10, 0.12, None, 1),  # an image of one tile: half up
        (10, 20, 0.12, None, 2),  # a tile of several: rounded up
        (10, None, 0.12, None, 2),
        (100, 200, 0.07, None, 7),  # 0.07 * 100 is a bit more than 7 in binary
        (10, 10, None, 6, 6),
        (10, 40, None, 6, 2),  # 1.5
        (10, 40, None, 99, 10),
        (3, 300, None, 1, 1),
        (10, None, None, 6, 6),  # if the image is unknown, the whole count
        (4, None, None, 6, 4),
    ],
)
def test_the_share_of_a_tile(
    n_visual: int, n_image: int | None, keep_ratio: float | None, keep: int | None, expected: int
) -> None:
    assert tile_share(n_visual, n_image, keep_ratio, keep) == expected


@pytest.mark.parametrize(
    ("scores", "mass", "expected"),
    [
        ([4.0, 1, 2, 1], 0.5, 1),  # exactly
        ([4.0, 1, 2, 1], 0.51, 2),
        ([4.0, 1, 2, 1], 1.0, 4),
        ([4.0, 0, 0, 0], 0.999, 1),
        ([4.0, 0, 0, 0], 1.0, 4),  # all, also those without a share
        ([0.0, 0, 0], 0.5, 3),  # no share to reach
    ],
)
def test_the_fewest_that_carry_a_share(scores: list[float], mass: float, expected: int) -> None:
    assert n_reaching(torch.tensor(scores), mass) == expected


@pytest.mark.parametrize(("odd", "kind"), [(-1.0, "negative"), (float("inf"), "infinite")])
def test_scores_without_shares(odd: float, kind: str) -> None:
    with pytest.raises(PruningError, match=f"some importance scores are {kind}"):
        n_reaching(torch.tensor([1.0, odd, 2.0]), 0.5)


def test_shares_of_half_precision_add_up() -> None:
    """In bfloat16 the sum would stop at 256."""
    assert n_reaching(torch.ones(1000, dtype=torch.bfloat16), 0.5) == 500


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (5, [4, 16], [1, 4]),
        (4, [2, 2, 2], [1, 1, 2]),
        (5, [4, 4], [2, 3]),
        (3, [0, 6], [0, 3]),
        (0, [], []),
        (2, [2], [2]),
    ],
)
def test_a_split(count: int, sizes: list[int], expected: list[int]) -> None:
    assert split(count, sizes) == expected
