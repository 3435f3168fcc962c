"""Markers between the visual tokens of an image; test_families.py compares the answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.marks import MISTRAL_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.processor.markers import markers_between, visual_among
from tokenprune.serving.vllm.settings import Settings

START, VISUAL, ROW, END = 6, 7, 8, 9
A, B = (1, 140, 112), (2, 200, 90)
N_VISUAL = {A: 5 * 4, B: 8 * 4}
REQUESTS = (
    Request(f"w1 w2 {MISTRAL_IMAGE} w3", (A,)),
    Request(f"{MISTRAL_IMAGE} w5 {MISTRAL_IMAGE} w6", (A, B)),
    Request(f"w1 {MISTRAL_IMAGE} w3", (B,), keep_ratio=0.5),
    Request(f"w1 {MISTRAL_IMAGE} w3", (A,), keep_ratio=1.0),
)
SETTINGS: dict[str, dict[str, Any]] = {
    "merging": {"strategy": "visionzip", "keep_ratio": 0.25, "contextual": 0.4},
    "features": {"strategy": "divprune", "keep_ratio": 0.3},
    "colors": {"strategy": "vflowopt:progressive=False", "keep_ratio": 0.25, "alpha": 1.0, "cell": 2.0},
    "pixels, compact": {"strategy": "random", "keep_ratio": 0.25, "position_ids": "compact"},
}


def test_what_is_between() -> None:
    ids = [START, VISUAL, VISUAL, ROW, VISUAL, END, END, VISUAL, END]
    visual = torch.tensor(ids) == VISUAL
    markers = markers_between(ids, visual, visual)
    assert markers == ((2, ROW), (4, END), (5, END))
    assert visual_among(markers, 4).tolist() == [0, 1, 3, 6]
    assert markers_between(ids[:3], visual[:3], visual[:3]) == ()


def test_what_is_around() -> None:
    """In Molmo 2, vLLM takes the rows of the marks around an image from the encoder."""
    ids = torch.tensor([5, START, VISUAL, ROW, VISUAL, END, 5])
    markers = markers_between(ids.tolist(), ids == VISUAL, ids != 5)
    assert markers == ((0, START), (2, ROW), (4, END))
    assert visual_among(markers, 2).tolist() == [1, 3]


def shortened(ids: list[int], has_markers: bool, parts: Sequence[int]) -> tuple[Any, Any]:
    """Return a placeholder with half of its visual tokens kept, and what the worker gets for it."""
    from vllm.multimodal.processing import PromptUpdateDetails  # pyright: ignore[reportMissingImports]
    from vllm.multimodal.processing.processor import (  # pyright: ignore[reportMissingImports]
        ResolvedPromptUpdate,
        UpdateMode,
    )

    from tokenprune.serving.vllm.processor.item import FIELD, PrunedItem
    from tokenprune.serving.vllm.processor.processor import PruningProcessor

    content = PromptUpdateDetails.select_token_id(ids, VISUAL)
    update = ResolvedPromptUpdate("image", 0, UpdateMode.REPLACE, [VISUAL], content)
    item: dict[str, Any] = {}
    settings = Settings.read({"strategy": "grid", "keep_ratio": 0.5})
    family = {"has_markers": has_markers, "parts": lambda *_: parts, "_left": lambda *_: None}
    family |= {"_shrunk": lambda *_: None, "visual": lambda ids, embedded: embedded}
    processor: Any = SimpleNamespace(settings=settings, **family)
    found = PruningProcessor._shortened(processor, update, None, item, "image").content
    return found, PrunedItem.read(item[FIELD].data)


@needs_vllm
def test_a_placeholder_has_as_many_tokens_as_are_left() -> None:
    ids = [START, *[VISUAL, VISUAL, VISUAL, ROW] * 2, END]
    ids[-2] = END
    found, item = shortened(ids, True, [6])
    assert found.full == [START, VISUAL, VISUAL, VISUAL, VISUAL, END, END]
    assert found.is_embed(found.full).tolist() == [False, True, True, True, True, False, False]
    assert (found.n_visual, found.n_kept) == (6, 3)
    assert (item.n_visual, item.markers) == (6, ((3, ROW),))
    assert item.places(Settings.read({"strategy": "grid", "keep_ratio": 0.5})) == [(7, 4)]


@needs_vllm
def test_families_without_markers() -> None:
    """Text between parts of an image or video stays; untested text is refused."""
    found, item = shortened([START, VISUAL, VISUAL, END, *[VISUAL] * 4, END], False, [2, 4])
    assert found.full == [START, VISUAL, END, VISUAL, VISUAL, END]
    assert (item.parts, item.markers) == ((2, 4), ())
    for parts in ([2], [2, 2]):
        with pytest.raises(UnsupportedError, match="text between the visual tokens of an image"):
            shortened([START, VISUAL, ROW, VISUAL, END] * len(parts), False, parts)


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_strategies(settings: dict[str, Any], tmp_path: Path) -> None:
    """Strategies of every kind, and what is recorded and counted."""
    save("mistral3", tmp_path)
    record = tmp_path / "kept.jsonl"
    answers = expected(tmp_path, settings, REQUESTS)
    # `Random` is seeded with the exact pixels, which the tower rounds differently when it normalises them.
    options = {"mm_device_do_normalize": settings["strategy"] != "random"}
    with engine(tmp_path, "TokenPruneMistral3", {**settings, "record": str(record)}, **options) as llm:
        before = counted()
        outputs = [one for request in REQUESTS for one in served(llm, [request])]
        seen, kept = (now - old for now, old in zip(counted(), before, strict=True))
        for output, answer in zip(served(llm, REQUESTS), answers, strict=True):
            check_equal(output, answer)
    n_visual = [sum(N_VISUAL[image] for image in request.images) for request in REQUESTS]
    n_kept = [sum(map(len, answer.kept)) for answer in answers]
    assert (seen, kept) == (sum(n_visual), sum(n_kept))
    for output, answer, whole, left in zip(outputs, answers, n_visual, n_kept, strict=True):
        check_equal(output, answer)
        assert len(output.prompt_token_ids) == answer.n_prompt - whole + left
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    images = {(request.keep_ratio, image) for request in REQUESTS for image in request.images}
    assert len(lines) == len(images)  # one of them is cached
    wanted = [kept for answer in answers for kept in answer.kept]
    assert all(line["kept"] in wanted for line in lines)


def counted() -> list[float]:
    """Return the visual tokens before and after pruning, as counted by this process's engines."""
    from prometheus_client import REGISTRY  # pyright: ignore[reportMissingImports]

    return [REGISTRY.get_sample_value(f"tokenprune_{name}visual_tokens_total") or 0 for name in ("", "kept_")]
