"""How a page's embeddings are clustered."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tokenprune.retrieval.ward import clusters_of, merge_clusters

# Clustering.


def test_clusters_by_hand() -> None:
    """Two directions of three and two shuffled embeddings give their means at length 1, ordered by first member."""
    angles = torch.tensor([1.5, 0.0, 1.6, 0.1, -0.1])
    points = torch.stack([angles.cos(), angles.sin()], 1)
    assert clusters_of(points, 2).tolist() == [0, 1, 0, 1, 1]
    expected = torch.tensor([[1.55], [0.0]])
    torch.testing.assert_close(merge_clusters(points, 2), torch.cat([expected.cos(), expected.sin()], 1))


def ward_by_hand(rows: Tensor, n_clusters: int) -> set[frozenset[int]]:
    """Ward's method by definition: merge the two clusters whose union increases the sum of squares least."""
    clusters = [[i] for i in range(len(rows))]
    while len(clusters) > n_clusters:
        means, sizes = [rows[c].mean(0) for c in clusters], [len(c) for c in clusters]
        cost = {
            (i, j): sizes[i] * sizes[j] / (sizes[i] + sizes[j]) * float((means[i] - means[j]).square().sum())
            for i in range(len(clusters))
            for j in range(i)
        }
        i, j = min(cost, key=lambda pair: cost[pair])
        clusters[j] += clusters.pop(i)
    return {frozenset(cluster) for cluster in clusters}


def test_rows_of_the_distance_matrix_are_clustered() -> None:
    points = normalize(torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = clusters_of(points, 6)
    groups = {frozenset((labels == label).nonzero()[:, 0].tolist()) for label in range(6)}
    assert groups == ward_by_hand(1 - points @ points.T, 6) != ward_by_hand(points, 6)


def test_as_many_clusters_as_embeddings_are_themselves() -> None:
    points = normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert clusters_of(points, 20).tolist() == list(range(20))
    assert merge_clusters(points, 9).shape == (2, 8)
    torch.testing.assert_close(merge_clusters(points, 9).norm(dim=-1), torch.ones(2))


def test_a_blank_page_is_one_embedding() -> None:
    assert len(merge_clusters(normalize(torch.ones(12, 4), dim=-1), 4)) == 1


def test_half_precision_is_clustered_in_float32() -> None:
    points = normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=-1).half()
    assert torch.equal(clusters_of(points, 8), clusters_of(points.float(), 8))
    assert merge_clusters(points, 5).dtype == torch.float16


def test_autocast_changes_no_cluster() -> None:
    """On a CPU, autocast would round the products to bfloat16, which scipy cannot read."""
    points = normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    expected = merge_clusters(points, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(merge_clusters(points, 5), expected)
