"""Ward's clustering, and pages of several tiles."""

from typing import Any

import pytest
import torch
import transformers
from helpers.families.base import IMAGE, PAD, PATCH, START, decoder
from helpers.families.base import tower as tower_settings
from helpers.models.retrievers import built, embedded, queries
from torch import Tensor
from torch.nn.functional import normalize

import tokenprune
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


# Light-ColPali on ColModernVBert, which splits a page into tiles.


TILE = 4  # visual tokens


@pytest.fixture(scope="module")
def colmodernvbert() -> Any:
    if not hasattr(transformers, "ColModernVBertForRetrieval"):
        pytest.skip("this transformers has no ColModernVBert")
    vision = {**tower_settings(4 * PATCH), "model_type": "siglip_vision_model"}
    text = {**decoder(), "model_type": "modernbert", "global_attn_every_n_layers": 2, "local_attention": 64}
    text |= {"cls_token_id": 1, "sep_token_id": 2}
    vlm = {
        "model_type": "modernvbert",
        "vision_config": vision,
        "text_config": text,
        "image_token_id": IMAGE,
        "pixel_shuffle_factor": 2,
    }
    config = transformers.ColModernVBertConfig(vlm_config=vlm, embedding_dim=16)
    return built(transformers.ColModernVBertForRetrieval, config)


def colmodernvbert_pages(n_tiles: list[int]) -> dict[str, Tensor]:
    """Return pages of `n_tiles` tiles, each after a marker, padded like in the processor: with tiles of zeros, and
    tokens on the right."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.zeros(len(n_tiles), max(n_tiles), 3, 4 * PATCH, 4 * PATCH)
    for page, n in zip(pixels, n_tiles, strict=True):
        page[:n] = torch.randn(page[:n].shape, generator=generator)
    rows = [[1, *[START, *[IMAGE] * TILE] * n, START, 8, 9] for n in n_tiles]
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "pixel_values": pixels}


def test_pages_of_colmodernvbert(colmodernvbert: Any) -> None:
    """The patches of all tiles of a page are merged, but not those of padding tiles. What is between tiles is text."""
    inputs = colmodernvbert_pages([3, 1])
    whole, is_patch = embedded(colmodernvbert, inputs), inputs["input_ids"] == IMAGE
    kept = {}
    for text in ("all", "after", "none"):
        with tokenprune.patch_retrieval(colmodernvbert, 4, text=text):
            kept[text] = embedded(colmodernvbert, inputs)
    for row, n_tiles in enumerate([3, 1]):
        texts = whole[row, inputs["attention_mask"][row].bool() & ~is_patch[row]]
        merged = merge_clusters(whole[row, is_patch[row]], 4)
        assert len(merged) == n_tiles * TILE // 4
        for name, first in (("all", texts), ("after", texts[-2:-1]), ("none", texts[:0])):
            n = len(first) + len(merged)
            torch.testing.assert_close(kept[name][row, :n], torch.cat([first, merged]))
            assert not kept[name][row, n:].any()
    with tokenprune.patch_retrieval(colmodernvbert):
        asked = embedded(colmodernvbert, queries())
    assert torch.equal(asked, embedded(colmodernvbert, queries()))
