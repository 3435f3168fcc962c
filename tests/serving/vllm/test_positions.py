"""Position IDs of pruned prompts, put together from two halves, are those of the unpruned prompt."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from helpers.served.engine import needs_vllm

from tokenprune.encoded import EncodedImage
from tokenprune.selection import Selection
from tokenprune.strategy import Strategy
from tokenprune.tokens import Layout, VisualTokens

pytestmark = needs_vllm
VISUAL, MARKER = -1, -2


class Fewer(Strategy):
    """Keeps one token less than it may."""

    def select(self, tokens: VisualTokens) -> Selection:
        scores = tokens.features[:, 0]
        return Selection.best(scores, self.budget(tokens.n_visual) - 1)


def test_offsets_survive_every_dtype() -> None:
    from tokenprune.serving.vllm.positions import MOST, append_offsets, split_offsets

    offsets = torch.arange(MOST)[:, None] + torch.zeros(3, dtype=torch.long)
    features = torch.randn(MOST, 2)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        rows, found = split_offsets(append_offsets(features.to(dtype), offsets), 3)
        assert torch.equal(found, offsets)
        assert torch.equal(rows, features.to(dtype))


@pytest.mark.parametrize("seed", range(20))
def test_prompt_with_images_and_videos(seed: int) -> None:
    """With text around images and their parts or not, beside items that are not pruned."""
    from vllm.multimodal.inputs import (  # pyright: ignore[reportMissingImports]
        MultiModalFeatureSpec,
        PlaceholderRange,
    )

    from tokenprune.serving.vllm.positions import StepPositions, compact_ids, pruned_ids, unpruned_prompt

    draw = random.Random(seed)
    ids: list[int] = []
    whole: list[int] = []  # the unpruned prompt
    original: list[int] = []  # the place in it of every token that is left
    features, counts, offsets, visual = [], {}, [], []

    def write(tokens: list[int]) -> None:
        original.extend(range(len(whole), len(whole) + len(tokens)))
        ids.extend(tokens)
        whole.extend(tokens)
        visual.extend([False] * len(tokens))

    for number in range(4):
        write([draw.randrange(9) for _ in range(draw.randrange(5))])
        markers, n_parts = draw.randrange(3), draw.randrange(1, 4)
        parts = [(n := draw.randrange(1, 9), draw.randrange(1, n + 1)) for _ in range(n_parts)]
        start, pruned = len(ids), draw.random() < 0.8
        if not pruned:
            write([VISUAL] * parts[0][0])
            mask = None
        else:
            of_item, is_visual = [], []
            for n, k in parts:
                write([MARKER] * markers)
                kept = sorted(draw.sample(range(n), k))
                original.extend(len(whole) + place for place in kept)
                of_item += kept
                ids.extend([VISUAL] * k)
                whole.extend([VISUAL] * n)
                visual.extend([True] * k)
                write([MARKER] * markers)
                is_visual += [False] * markers + [True] * k + [False] * markers
            offsets.append(torch.tensor(of_item)[:, None])
            mask = torch.tensor(is_visual) if markers else None
        where = PlaceholderRange(start, len(ids) - start, is_embed=mask)
        features.append(MultiModalFeatureSpec(None, "image", str(number), where))
        counts[str(number)] = parts if pruned else None
    write([draw.randrange(9) for _ in range(3)])

    found, moved, places = unpruned_prompt(ids, features, lambda feature: counts[feature.identifier])
    assert found == whole
    for one in moved:
        where, count = one.mm_position, counts[one.identifier]
        tokens = torch.tensor(found[where.offset : where.offset + where.length])
        assert len(tokens) == where.length
        assert count is None or int((tokens == VISUAL).sum()) == sum(n for n, _ in count)
        assert where.is_embed is None or torch.equal(tokens == VISUAL, where.is_embed)
    positions, delta = pruned_ids(*compact_ids(len(found)), places)
    step = StepPositions(1, 200, width=5, adds=True)
    rows = [torch.randn(len(one), 5) for one in offsets]
    unpacked = step.unpack(
        [torch.cat([row, one // 256, one % 256], 1) for row, one in zip(rows, offsets, strict=True)],
        torch.tensor(visual),
    )
    assert all(torch.equal(a, b) for a, b in zip(unpacked, rows, strict=True))
    assert step.apply(positions)[0].tolist() == original
    assert len(ids) + delta == len(whole)  # the first answered token


def test_embeddings_of_text_have_no_offsets() -> None:
    from tokenprune.serving.vllm.positions import StepPositions, append_offsets

    step = StepPositions(3, 20, width=8, adds=True)
    text, image = torch.randn(2, 8), torch.randn(3, 8)
    offsets = torch.tensor([[0, 0, 1], [0, 2, 0], [1, 0, 300]])
    mask = torch.tensor([True, False, True, True, False, True, True])
    found = step.unpack([text[:1], append_offsets(image, offsets), text[1:]], mask)
    assert all(torch.equal(a, b) for a, b in zip(found, (text[:1], image, text[1:]), strict=True))
    ids = step.apply(torch.zeros(3, 7, dtype=torch.long)).T
    assert torch.equal(ids[mask], torch.cat([offsets.new_zeros(1, 3), offsets, offsets.new_zeros(1, 3)]))
    assert not ids[~mask].any()


@pytest.mark.parametrize(("n_broken", "wanted"), [(1, [0, 2, 3]), (4, [0, 1, 5])])
def test_features_that_are_no_numbers(n_broken: int, wanted: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is raised, since that would end the engine, and no NaN gets into its KV cache."""
    from tokenprune import DivPrune
    from tokenprune.serving.vllm.core import ImageSelector, logger
    from tokenprune.serving.vllm.settings import Settings

    logger.addHandler(caplog.handler)
    features = torch.randn(6, 2)
    features[1 : 1 + n_broken] = torch.nan
    selector = ImageSelector(Settings(DivPrune(keep=3)), 2, reports=False)
    rows, kept = selector.select(features, EncodedImage(Layout.raster((1, 2, 3)), {}), None)
    logger.removeHandler(caplog.handler)
    assert kept.tolist() == wanted
    assert torch.equal(rows, features[kept].nan_to_num())
    assert "NaN or infinity, from which DivPrune cannot select" in caplog.text


def test_a_strategy_that_keeps_fewer_is_filled_up(caplog: pytest.LogCaptureFixture) -> None:
    from tokenprune.serving.vllm.core import ImageSelector
    from tokenprune.serving.vllm.settings import Settings

    selector = ImageSelector(Settings(Fewer(keep=3)), 2)
    features = torch.tensor([[5.0, 0], [1, 1], [4, 2], [3, 3], [0, 4], [2, 5]])
    image = EncodedImage(Layout.raster((1, 2, 3)), {})
    for _ in range(2):
        rows, kept = selector.select(features, image, None)
        assert kept.tolist() == [0, 2, 3]
        assert torch.equal(rows, features[kept])
    assert sum("kept fewer visual tokens than its budget" in one.message for one in caplog.records) <= 1
    rows, kept = selector.select(features, image, 1.0)
    assert kept.tolist() == list(range(6))


def test_an_item_says_what_is_asked() -> None:
    from vllm.multimodal.inputs import (  # pyright: ignore[reportMissingImports]
        MultiModalFeatureSpec,
        MultiModalKwargsItem,
        PlaceholderRange,
    )

    from tokenprune.errors import PruningError
    from tokenprune.serving.vllm.processing import FIELD, PrunedItem

    def feature(data: Any, modality: str = "image") -> Any:
        return MultiModalFeatureSpec(data, modality, "name", PlaceholderRange(0, 9))

    several = (
        PrunedItem((36,), None, 2**53 - 1),
        PrunedItem((576, 300, 2), 0.1, 3),
        PrunedItem((9,), None, 3, ((3, 2**17), (7, 0))),
    )
    for item in several:
        assert PrunedItem.read(item.element().data) == item
        assert PrunedItem.of(feature(MultiModalKwargsItem({FIELD: item.element()})), ["image"]) == item
    assert PrunedItem.of(feature(None, "video"), ["image"]) is None
    for modality in ("image", "video"):
        with pytest.raises(PruningError, match=f"vLLM lost the data that tokenprune attached to one {modality}"):
            PrunedItem.of(feature(None, modality), ["image", "video"])


def test_items_that_share_a_token() -> None:
    """Gemma 3 joins the newlines after an image and before the next one to one token."""
    from vllm.multimodal.inputs import (  # pyright: ignore[reportMissingImports]
        MultiModalFeatureSpec,
        PlaceholderRange,
    )

    from tokenprune.serving.vllm.positions import Place, compact_ids, pruned_ids, unpruned_prompt

    ids = [1, MARKER, VISUAL, VISUAL, MARKER, VISUAL, MARKER, MARKER, VISUAL, MARKER, 2]
    masks = {"a": [0, 1, 1, 0], "b": [0, 1, 0], "c": [0, 1, 0]}
    starts = {"a": 1, "b": 4, "c": 7}
    features = [
        MultiModalFeatureSpec(None, "image", name, PlaceholderRange(starts[name], len(mask), torch.tensor(mask) > 0))
        for name, mask in masks.items()
    ]
    counts = {"a": [(4, 2)], "b": None, "c": [(3, 1)]}
    found, moved, places = unpruned_prompt(ids, features, lambda feature: counts[feature.identifier])
    assert found == [1, MARKER, *[VISUAL] * 4, MARKER, VISUAL, MARKER, MARKER, *[VISUAL] * 3, MARKER, 2]
    assert [(one.mm_position.offset, one.mm_position.length) for one in moved] == [(1, 6), (6, 3), (9, 5)]
    assert places == [Place(2, 2, 4), Place(1, 10, 3)]
    positions, delta = pruned_ids(*compact_ids(len(found)), places)
    assert positions[0].tolist() == [0, 1, 2, 2, 6, 7, 8, 9, 10, 13, 14]
    assert delta == 4
