"""Light-ColPali on ColModernVBert, which splits a page into tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from helpers.families.base import IMAGE, PAD, PATCH, START, decoder
from helpers.families.base import tower as tower_settings
from helpers.models.retrievers import built, embedded, queries
from torch import Tensor

import tokenprune
from tokenprune.retrieval.ward import merge_clusters

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
