"""Sharing a budget among parts, and recycling what is dropped."""

import pytest
import torch

from tokenprune.strategies.shared import density
from tokenprune.strategies.shared.density import density_peaks, log_prominence, nearest_centres, scaled_distances
from tokenprune.strategies.shared.recycling import recycle_by_cluster, recycling_counts
from tokenprune.strategies.shared.shares import best_of_frames, evenly_spaced, largest_remainders


@pytest.mark.parametrize(
    ("weights", "count", "least", "most", "expected"),
    [
        ([1, 1, 1], 9, 1, 5, [3, 3, 3]),
        ([1, 1, 1], 11, 1, 5, [4, 4, 3]),
        ([3, 1], 10, 1, 9, [7, 3]),
        ([100, 1, 1], 12, 1, 5, [5, 4, 3]),
        ([1, 1, 1], 2, 1, 5, [1, 1, 0]),
        ([1, 2], 10, 0, 5, [5, 5]),
        ([100, 1, 1], 3, 1, 5, [1, 1, 1]),  # just enough for all
        ([3, 1], 3, 2, 9, [2, 1]),  # not enough
        ([5, 3, 2], 9, 0, 9, [4, 3, 2]),  # of 4.5, 2.7 and 1.8, the last two are rounded up
    ],
)
def test_largest_remainders(weights: list[int], count: int, least: int, most: int, expected: list[int]) -> None:
    assert largest_remainders([float(weight) for weight in weights], count, least, most) == expected


def test_best_of_frames_takes_the_first_of_equal_scores() -> None:
    scores = torch.tensor([[1.0, 3, 3, 3], [0, 0, 0, 0], [4, 3, 2, 1]])
    marked = best_of_frames(scores, torch.tensor([2, 1, 0]))
    assert marked.tolist() == [[False, True, True, False], [True, False, False, False], [False] * 4]


def test_places_of_the_first_frame_are_the_middles_of_equal_parts() -> None:
    """Of ten: 5; of fives: 2 and 7; of all: each."""
    found = [evenly_spaced(10, count, torch.device("cpu")).tolist() for count in (1, 2, 10)]
    assert found == [[5], [2, 7], list(range(10))]


# Clusters around density peaks, and SparseVLM's recycling of dropped tokens, computed by hand.


def test_density_peaks() -> None:
    features = torch.tensor([[0.0], [1], [10], [12]])
    # Mean squared distances to all four: 61.3, 50.8, 46.3, 67.3; distances to the nearest denser one: 1, 9, 12 (the
    # densest: the longest there is), 2.
    distances = scaled_distances(features)
    centres = density_peaks(distances, 2, 5)
    assert centres.tolist() == [2, 1]
    assert nearest_centres(distances, centres).tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(scaled_distances(features.repeat(1, 4)), distances)  # the width does not count
    wide = features.repeat(1, 4) * 1000  # exp() of these densities is 0
    assert density_peaks(scaled_distances(wide), 2, 5).tolist() == [2, 1]
    distances = scaled_distances(torch.ones(3, 2))
    centres = density_peaks(distances, 2, 5)
    assert nearest_centres(distances, centres).tolist()[:2] == [0, 1]  # duplicates: every centre is its own


def test_prominence_is_density_times_isolation() -> None:
    """The densest is 1, with the longest distance, 4; the nearest denser token is 1 away from 0, and 3 from 2."""
    distances = torch.tensor([[0.0, 1, 4], [1, 0, 3], [4, 3, 0]])
    found = log_prominence(distances, torch.tensor([0.5, 0.9, 0.2]).log()).exp()
    torch.testing.assert_close(found, torch.tensor([0.5 * 1, 0.9 * 4, 0.2 * 3]))


def test_densities_are_of_mean_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 0, 1, 10 and 12, the distances to the nearest two: 0 and 1, 0 and 1, 0 and 2, 0 and 2."""
    seen: list[torch.Tensor] = []

    def watched(distances: torch.Tensor, log_density: torch.Tensor) -> torch.Tensor:
        seen.append(log_density)
        return log_density

    monkeypatch.setattr(density, "log_prominence", watched)
    density_peaks(scaled_distances(torch.tensor([[0.0], [1], [10], [12]])), 1, 2)
    torch.testing.assert_close(seen[0], -torch.tensor([0.5, 0.5, 2, 2]))


def test_sparsevlm_merges_what_it_drops() -> None:
    scores = torch.tensor([9, 8, 0.4, 0.3, 0.2, 0.1])
    features = torch.tensor([[7.0], [7], [0], [1], [10], [12]])
    selection = recycle_by_cluster(scores, torch.arange(6), features, 3, recycle=1.0, clusters=0.1)
    assert selection.kept.tolist() == [0, 1, 2]  # two whole, and the first of the others for all four
    assert sorted(selection.merged.sources.tolist()) == [2, 3, 4, 5]
    assert selection.merged.apply(features, selection.kept)[:, 0].tolist() == [7, 7, 5.75]


def test_as_many_neighbours_as_clusters() -> None:
    """Two close together and three less so: with two neighbours each, both groups have a centre. With more, both
    centres would be among the three."""
    features = torch.tensor([[0.0], [1], [100], [103], [106]])
    selection = recycle_by_cluster(torch.ones(5), torch.arange(5), features, 2, recycle=1.0, clusters=0.3)
    assert selection.kept.tolist() == [0, 2]


def test_only_the_best_of_what_is_dropped_is_merged() -> None:
    counts = [(0, 0), (1, 1), (1, 1), (4, 1), (6, 1), (31, 4)]
    assert [recycling_counts(n, 0.3, 0.1) for n in (0, 1, 2, 10, 17, 100)] == counts
    scores, order = torch.arange(20.0), torch.arange(19, -1, -1)
    selection = recycle_by_cluster(scores, order, torch.randn(20, 3), 9, recycle=0.3, clusters=0.1)
    # Eight whole; of twelve dropped, int(3.6) + 1 = 4 are merged into one.
    assert selection.kept.tolist()[1:] == list(range(12, 20))
    assert sorted(selection.merged.sources.tolist()) == [8, 9, 10, 11]


def test_merged_tokens_count() -> None:
    torch.manual_seed(0)
    for n_left in (1, 2, 5, 36):
        scores, features = torch.rand(n_left), torch.randn(n_left, 4)
        order = scores.argsort(descending=True)
        for n_kept in range(1, n_left + 1):
            for recycle, clusters in ((0.3, 0.1), (1.0, 1.0), (1.0, 0.5), (0.01, 0.0)):
                assert len(recycle_by_cluster(scores, order, features, n_kept, recycle, clusters).kept) == n_kept
