"""VisPruner against rounds computed by hand."""

from dataclasses import replace

import pytest
import torch
from helpers.tokens.by_hand import at, tokens_of
from helpers.tokens.scored import scored

from tokenprune import VisPruner
from tokenprune.strategies.pre_llm import vispruner
from tokenprune.strategies.pre_llm.vispruner import drop_duplicates
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.tokens import Layout

# Unit vectors by their angle in degrees; the order is that of attention.
ANGLES = [0.0, 90.0, 88.0, 1.0, 45.0, 180.0]


def test_duplicates_go_round_by_round() -> None:
    """Compared are 0 (0), 2 (88) and 4 (45 degrees), with 1 (90), 3 (1) and 5 (180): the nearest are 1, 2 and 44
    degrees away. One goes in a round: first 0, which leaves 2 4 1 3 5. Then 2, 1 and 5 are compared with 4 and 3: 43,
    45 and 135 degrees, so 2 goes. If two go in a round, 0 and 2 leave 4 1 3 5, of which 4 is 45 degrees from 1,
    and 3 is 89.
    """
    vectors, order = at(*ANGLES), torch.arange(6)
    assert drop_duplicates(order, vectors, 5, step=1).tolist() == [2, 4, 1, 3, 5]
    assert drop_duplicates(order, vectors, 4, step=1).tolist() == [1, 5, 4, 3]
    assert drop_duplicates(order, vectors, 3, step=2).tolist() == [3, 1, 5]
    assert drop_duplicates(order, vectors, 0).tolist() == []
    assert drop_duplicates(order, vectors, 6).tolist() == list(range(6))
    assert len(drop_duplicates(order, vectors, 1, step=100)) == 1


def test_pairs_of_a_large_image_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit_vectors(torch.randn(41, 5, generator=torch.Generator().manual_seed(0)))
    order = torch.randperm(41, generator=torch.Generator().manual_seed(1))
    stored = [drop_duplicates(order, vectors, count, step=3).tolist() for count in (1, 7, 30)]
    monkeypatch.setattr(vispruner, "BLOCK_ELEMENTS", 100)
    assert [drop_duplicates(order, vectors, count, step=3).tolist() for count in (1, 7, 30)] == stored


def test_important_and_diverse() -> None:
    """Of 4, two are the most attended, 3 and 1. The others by attention are 0 2 4 5: 0 (0) and 4 (45 degrees) are
    compared with 2 (88) and 5 (180), and both go in one round."""
    features = at(*ANGLES).tolist()
    tokens = tokens_of([4.0, 5.0, 3.0, 6.0, 2.0, 1.0], [[0.0]] * 6, features)
    assert VisPruner(keep=4).select(tokens).kept.tolist() == [1, 2, 3, 5]
    assert VisPruner(keep=5).select(tokens).kept.tolist() == [0, 1, 2, 3, 5]
    assert VisPruner(keep=3, important=1.0).select(tokens).kept.tolist() == [0, 1, 3]
    # Nine tenths of one token are none: of 3 1 0 2 4 5, every second one is left, 1 2 5, and then the second, 2.
    assert VisPruner(keep=1, important=0.9).select(tokens).kept.tolist() == [2]


@pytest.mark.parametrize(("n_visual", "step"), [(300, 8), (647, 8), (648, 9), (1440, 20)])
def test_how_many_go_in_a_round(n_visual: int, step: int) -> None:
    """Eight, and of more than 576 tokens a 72nd."""
    features = torch.randn(n_visual, 4, generator=torch.Generator().manual_seed(0))
    tokens = scored(torch.arange(n_visual, 0, -1).tolist(), Layout.raster((1, 1, n_visual)))
    n_kept = n_visual // 2
    kept = VisPruner(keep=n_kept, important=0.0).select(replace(tokens, features=features)).kept.tolist()
    for other in (step - 1, step, step + 1):
        left = drop_duplicates(torch.arange(n_visual), unit_vectors(features), n_kept, other)
        assert (kept == left.sort().values.tolist()) == (other == step)
