"""Background Token Pruning's clustering: by hand, and against a neighbour-by-neighbour computation."""

from functools import cache
from math import cos, radians

import pytest
import torch
from helpers.tokens.by_hand import at
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tokenprune.strategies.shared import clusters
from tokenprune.strategies.shared.clusters import (
    cluster_means,
    find_roots,
    link_neighbours,
    quantile_of_links,
    threshold_links,
)
from tokenprune.tokens import Layout
from tokenprune.tokens.cells import rank_within

STEPS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def cut_all(parents: Tensor, cosines: Tensor, threshold: float = -1.0, most: int = 10**6) -> Tensor:
    groups = torch.zeros_like(parents)
    return find_roots(threshold_links(parents, cosines, threshold, torch.tensor([most]), groups))


def smooth(side: int = 24, width: int = 16) -> Tensor:
    """Return a slowly changing field, (side * side, width)."""
    coarse = torch.randn(1, width, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0].flatten(1).T


def layouts() -> st.SearchStrategy[tuple[list[tuple[int, int, int]], int, int]]:
    """Return rasters of several frames, the number of tiles, and one in how many tokens is a newline token."""
    size = st.integers(1, 5)
    grids = st.lists(st.tuples(st.integers(1, 2), size, size), min_size=1, max_size=3)
    return st.tuples(grids, st.integers(1, 3), st.sampled_from([0, 5]))


def scattered(grids: list[tuple[int, int, int]], n_tiles: int, newlines: int, seed: int) -> Layout:
    """Return a layout with tiles and newline tokens at random places."""
    n, generator = sum(t * h * w for t, h, w in grids), torch.Generator().manual_seed(seed)
    tiles = torch.randint(0, n_tiles, (n,), generator=generator)
    lines = torch.randint(0, newlines, (n,), generator=generator) == 0 if newlines else None
    return Layout(tuple(grids), tiles=tiles if n_tiles > 1 else None, newlines=lines)


def neighbours(layout: Layout) -> list[list[int]]:
    """Return the tokens that each token may be linked to, in raster order."""
    places = [tuple(place) for place in layout.coordinates().tolist()]
    index = {place: i for i, place in enumerate(places)}
    found = []
    for i, (raster, frame, row, column) in enumerate(places):
        near = [index.get((raster, frame, row + down, column + right)) for down, right in STEPS]
        found.append([j for j in near if j is not None and same_region(layout, i, j)])
    return found


def same_region(layout: Layout, i: int, j: int) -> bool:
    one_tile = layout.tiles is None or bool(layout.tiles[i] == layout.tiles[j])
    return one_tile and (layout.newlines is None or not bool(layout.newlines[[i, j]].any()))


@cache
def patterns(n: int, seed: int) -> Tensor:
    """Return features with many exact ties."""
    return torch.randint(0, 3, (n, 3), generator=torch.Generator().manual_seed(seed)).float()


def test_a_row_by_hand() -> None:
    """0, 10, 40 and 100 degrees: the first two are each other's best, the third follows the second, the fourth it."""
    parents, cosines = link_neighbours(at(0, 10, 40, 100), Layout.raster((1, 1, 4)))
    assert parents.tolist() == [0, 0, 1, 2]
    assert cosines.tolist() == pytest.approx([cos(radians(a)) for a in (10, 10, 30, 60)], abs=1e-6)
    assert find_roots(parents).tolist() == [0, 0, 0, 0]
    assert cut_all(parents, cosines, threshold=0.6).tolist() == [0, 0, 0, 3]
    assert cut_all(parents, cosines, threshold=0.9).tolist() == [0, 0, 2, 3]
    assert cut_all(parents, cosines, most=1).tolist() == [0, 0, 2, 3]
    assert cut_all(parents, cosines, most=0).tolist() == [0, 1, 2, 3]


def test_a_square_by_hand() -> None:
    """The diagonals are alike, and count as neighbours:  0 50
    55  4
    """
    parents, _ = link_neighbours(at(0, 50, 55, 4), Layout.raster((1, 2, 2)))
    assert parents.tolist() == [0, 1, 1, 0]


def test_neighbours_do_not_wrap_around() -> None:
    """The end of a row and the beginning of the next are equal, and far apart."""
    parents, cosines = link_neighbours(at(0, 20, 90, 90, 50, 0), Layout.raster((1, 2, 3)))
    assert parents.tolist() == [0, 0, 4, 4, 1, 1]
    assert cosines.tolist() == pytest.approx([cos(radians(a)) for a in (20, 20, 40, 40, 30, 20)], abs=1e-6)


def test_an_image_without_structure_is_one_cluster() -> None:
    parents, _ = link_neighbours(torch.ones(35, 4), Layout.raster((1, 5, 7)))
    assert find_roots(parents).tolist() == [0] * 35


def test_of_equal_neighbours_the_first_in_raster_order() -> None:
    """0 1 2
    3 4 5
    6 7 8"""
    parents, _ = link_neighbours(torch.ones(9, 4), Layout.raster((1, 3, 3)))
    assert parents.tolist() == [0, 0, 1, 0, 0, 1, 3, 3, 4]


def test_rasters_frames_and_newline_tokens_by_hand() -> None:
    """A row, two frames of a square, and a row again, which ends in two newline tokens."""
    grids = ((1, 1, 3), (2, 2, 2), (1, 1, 3))
    layout = Layout(grids, newlines=torch.arange(14) >= 12)
    parents, cosines = link_neighbours(at(0, 10, 40, 0, 50, 55, 4, 50, 0, 4, 55, 0, 0, 0), layout)
    assert parents.tolist() == [0, 0, 1, 3, 4, 4, 3, 7, 8, 8, 7, 11, 12, 13]
    assert cosines[11:].tolist() == [-torch.inf] * 3


def test_a_smooth_field() -> None:
    """Each cluster has exactly one pair of mutual best neighbours. Were the pair's cycle not broken, both would be
    roots, twice as many; and were a token its own neighbour, every one."""
    parents, _ = link_neighbours(smooth(), Layout.raster((1, 24, 24)))
    unit = torch.nn.functional.normalize(smooth(), dim=1)
    near = torch.zeros(576, 576).bool()
    for token, others in enumerate(neighbours(Layout.raster((1, 24, 24)))):
        near[token, others] = True
    best = (unit @ unit.T).masked_fill(~near, -torch.inf).argmax(1)
    pairs = int((best[best] == torch.arange(576)).sum()) // 2
    assert len(find_roots(parents).unique()) == pairs
    assert 576 / 6 < pairs < 576 / 2
    assert torch.equal(torch.where(parents == torch.arange(576), best, parents), best)


@settings(max_examples=60, deadline=None, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])
@given(layouts(), st.integers(0, 99), st.integers(0, 60))
def test_clusters_of_any_layout(drawn: tuple[list[tuple[int, int, int]], int, int], seed: int, most: int) -> None:
    layout = scattered(*drawn, seed)
    n, index = layout.n_visual, torch.arange(layout.n_visual)
    features = patterns(n, seed)
    parents, cosines = link_neighbours(features, layout)
    unit = torch.nn.functional.normalize(features, dim=1)
    for token, near in enumerate(neighbours(layout)):
        if not near:
            assert parents[token] == token
            assert cosines[token] == -torch.inf
            continue
        likeness = unit[near] @ unit[token]
        assert cosines[token].item() == pytest.approx(likeness.max().item(), abs=1e-6)
        if parents[token] != token:
            assert (unit[parents[token]] @ unit[token]).item() == pytest.approx(likeness.max().item(), abs=1e-6)
            assert int(parents[token]) in near
        else:  # the first of a pair
            assert any(int(parents[other]) == token for other in near)

    for roots in (find_roots(parents), cut_all(parents, cosines, most=most)):
        assert torch.equal(roots[roots], roots)
        for root in roots.unique():
            members = (roots == root).nonzero()[:, 0].tolist()
            inner = [(i, j) for i in members for j in neighbours(layout)[i] if j in members]
            rows, columns = ([members.index(pair[side]) for pair in inner] for side in (0, 1))
            graph = coo_array(([1] * len(inner), (rows, columns)), shape=(len(members), len(members)))
            assert connected_components(graph)[0] == 1
    links = int((parents != index).sum())
    assert len(find_roots(parents).unique()) == n - links
    assert len(cut_all(parents, cosines, most=most).unique()) == n - min(links, most)


@pytest.mark.parametrize("elements", [1, 16 * 24 * 5])
def test_bands_of_rows_change_nothing(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.concat([Layout.raster((1, 24, 24))] * 3)
    features = torch.cat([smooth(), smooth().flip(0), torch.ones(576, 16)])
    whole = link_neighbours(features, layout)
    monkeypatch.setattr(clusters, "BAND_ELEMENTS", elements)
    for one, other in zip(whole, link_neighbours(features, layout), strict=True):
        assert torch.equal(one, other)


def test_the_strongest_links_stay_in_every_group() -> None:
    parents = torch.tensor([0, 0, 1, 3, 3, 4])
    cosines = torch.tensor([0.9, 0.9, 0.7, 0.8, 0.8, 0.95])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    assert threshold_links(parents, cosines, -1.0, torch.tensor([1, 1]), groups).tolist() == [0, 0, 2, 3, 4, 4]
    assert threshold_links(parents, cosines, -1.0, torch.tensor([2, 0]), groups).tolist() == [0, 0, 1, 3, 4, 5]
    assert threshold_links(parents, cosines, 0.8, torch.tensor([9, 9]), groups).tolist() == [0, 0, 2, 3, 3, 4]


def test_places_and_means() -> None:
    values, groups = torch.tensor([1.0, 3.0, 3.0, 2.0, 5.0]), torch.tensor([1, 0, 1, 1, 0])
    assert rank_within(values, groups).tolist() == [2, 1, 0, 1, 0]
    assert rank_within(torch.ones(4), torch.zeros(4).long()).tolist() == [0, 1, 2, 3]
    roots = torch.tensor([0, 0, 2, 0, 2])
    assert cluster_means(values, roots).tolist() == [2.0, 0.0, 4.0, 0.0, 0.0]
    assert cluster_means(torch.stack([values, -values]), roots)[1].tolist() == [-2.0, 0.0, -4.0, 0.0, 0.0]


def test_features_that_want_a_gradient_are_clustered_alike() -> None:
    """Features have a gradient if a model is called outside of torch.no_grad()."""
    features, layout = smooth(), Layout.raster((1, 24, 24))
    alike = zip(
        link_neighbours(features, layout), link_neighbours(features.clone().requires_grad_(), layout), strict=True
    )
    for plain, wanted in alike:
        assert not wanted.requires_grad
        torch.testing.assert_close(wanted, plain, rtol=0, atol=0)


def test_the_quantile_leaves_out_tokens_without_neighbours() -> None:
    cosines = torch.tensor([0.2, -torch.inf, 0.4, 0.6, 0.8, 1.0])
    assert float(quantile_of_links(cosines, 0.25)) == pytest.approx(0.4)
    assert float(quantile_of_links(cosines, 0.0)) == pytest.approx(0.2)
