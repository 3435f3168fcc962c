"""Position IDs of pruned prompts, assembled from two halves, are those of the unpruned prompt."""

import random

import pytest
import torch
from helpers.served.engine import needs_vllm

pytestmark = needs_vllm
VISUAL, MARKER = -1, -2


def test_offsets_survive_every_dtype() -> None:
    from tokenprune.serving.vllm.worker.positions import MOST, append_offsets, split_offsets

    offsets = torch.arange(MOST)[:, None] + torch.zeros(3, dtype=torch.long)
    features = torch.randn(MOST, 2)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        rows, found = split_offsets(append_offsets(features.to(dtype), offsets), 3)
        assert torch.equal(found, offsets)
        assert torch.equal(rows, features.to(dtype))


@pytest.mark.parametrize("seed", range(20))
def test_prompt_with_images_and_videos(seed: int) -> None:
    """With or without text around images and their parts, and next to items that are not pruned."""
    from vllm.multimodal.inputs import (  # pyright: ignore[reportMissingImports]
        MultiModalFeatureSpec,
        PlaceholderRange,
    )

    from tokenprune.serving.vllm.worker.positions import StepPositions, compact_ids, pruned_ids, unpruned_prompt

    draw = random.Random(seed)
    ids: list[int] = []
    whole: list[int] = []  # the unpruned prompt
    original: list[int] = []  # the place in the unpruned prompt of every token that is left
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
    positions, delta = pruned_ids(*compact_ids(len(found), 1), places)
    step = StepPositions(1, 200, width=5, adds=True)
    rows = [torch.randn(len(one), 5) for one in offsets]
    unpacked = step.unpack(
        [torch.cat([row, one // 256, one % 256], 1) for row, one in zip(rows, offsets, strict=True)],
        torch.tensor(visual),
    )
    assert all(torch.equal(a, b) for a, b in zip(unpacked, rows, strict=True))
    assert step.apply(positions)[0].tolist() == original
    assert len(ids) + delta == len(whole)  # the position of the first answer token


def test_embeddings_of_text_have_no_offsets() -> None:
    from tokenprune.serving.vllm.worker.positions import StepPositions, append_offsets

    step = StepPositions(3, 20, width=8, adds=True)
    text, image = torch.randn(2, 8), torch.randn(3, 8)
    offsets = torch.tensor([[0, 0, 1], [0, 2, 0], [1, 0, 300]])
    mask = torch.tensor([True, False, True, True, False, True, True])
    found = step.unpack([text[:1], append_offsets(image, offsets), text[1:]], mask)
    assert all(torch.equal(a, b) for a, b in zip(found, (text[:1], image, text[1:]), strict=True))
    ids = step.apply(torch.zeros(3, 7, dtype=torch.long)).T
    assert torch.equal(ids[mask], torch.cat([offsets.new_zeros(1, 3), offsets, offsets.new_zeros(1, 3)]))
    assert not ids[~mask].any()


def test_items_that_share_a_token() -> None:
    """Gemma 3 merges the newlines after an image and before the next one into one token."""
    from vllm.multimodal.inputs import (  # pyright: ignore[reportMissingImports]
        MultiModalFeatureSpec,
        PlaceholderRange,
    )

    from tokenprune.serving.vllm.worker.positions import Place, compact_ids, pruned_ids, unpruned_prompt

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
    positions, delta = pruned_ids(*compact_ids(len(found), 1), places)
    assert positions[0].tolist() == [0, 1, 2, 2, 6, 7, 8, 9, 10, 13, 14]
    assert delta == 4
