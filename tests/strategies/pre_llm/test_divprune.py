"""DivPrune against its definition: numbers computed by hand, and the whole distance map on random features."""

import math

import pytest
import torch

from tokenprune import DivPrune
from tokenprune.strategies.pre_llm.divprune import most_diverse
from tokenprune.strategies.shared import similarity
from tokenprune.strategies.shared.similarity import most_similar, unit_vectors
from tokenprune.tokens import Layout, VisualTokens


def test_the_most_different_directions_first() -> None:
    """Angles 0, 10, 90, 105 and 180 degrees; lengths do not matter.

    180 is farthest from its neighbour (75 degrees, from 105), then 0 is farthest from 180, then 90 is 90 degrees from
    both; of 10 (10 degrees from 0) and 105 (15 degrees from 90), 105 is next.
    """
    angles = torch.tensor([0.0, 10.0, 90.0, 105.0, 180.0]) * math.pi / 180
    lengths = torch.tensor([1.0, 0.01, 0.5, 2.0, 3.0])
    features = torch.stack([angles.cos(), angles.sin()], 1) * lengths[:, None]
    assert most_diverse(unit_vectors(features), 4).tolist() == [4, 0, 2, 3]
    tokens = VisualTokens(features, Layout.raster((1, 1, 5)))
    assert DivPrune(keep=3).select(tokens).kept.tolist() == [0, 2, 4]


def greedy(features: torch.Tensor, n_kept: int) -> list[int]:
    """Return the result of the paper's procedure on the whole distance map."""
    distances = 1 - torch.nn.functional.cosine_similarity(features[None], features[:, None], dim=2)
    chosen: list[int] = []
    while len(chosen) < n_kept:
        left = [i for i in range(len(features)) if i not in chosen]
        to = [[j for j in (chosen or range(len(features))) if j != i] for i in range(len(features))]
        chosen.append(max(left, key=lambda i: float(distances[i, to[i]].min())))
    return chosen


@pytest.mark.parametrize("block", [1, 50, 2**24])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", block)
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    assert most_diverse(unit_vectors(features), 17).tolist() == greedy(features, 17)


def test_copies_come_last() -> None:
    features = torch.eye(4)[[0, 0, 1, 0, 2, 3]]
    assert set(most_diverse(unit_vectors(features), 4).tolist()) - {1, 3} in ({0, 2, 4, 5}, {2, 4, 5})
    assert len(set(most_diverse(unit_vectors(features), 5).tolist())) == 5  # and are not chosen twice


def test_most_similar_tells_the_best_first() -> None:
    candidates = unit_vectors(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))
    values, indices = most_similar(unit_vectors(torch.tensor([[2.0, 1.0]])), candidates, 3)
    assert indices.tolist() == [[1, 0, 2]]  # 3, 2 and 1 over the square root of 10, 5 and 5
    torch.testing.assert_close(values, torch.tensor([[3 / 10**0.5, 2 / 5**0.5, 1 / 5**0.5]]))
