"""A LLaVA that gets the frames of a video as images: strategies for videos see one video per row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, oracle_logits
from helpers.families import FAMILIES
from helpers.tiny import prompt

import tokenprune
from tokenprune import STRATEGIES, PruningError
from tokenprune.adapters import ADAPTERS
from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.adapters.families.llava_frames import LlavaFramesAdapter
from tokenprune.evals.models.video_prompts import adapter_for_clips

VIDEO = [name for name, cls in STRATEGIES.items() if "frames" in cls().needs]


@pytest.mark.parametrize("name", [*VIDEO, "fopru"])
def test_dropping_equals_masking(name: str, llava: Any) -> None:
    inputs = prompt([3, 2])
    strategy = STRATEGIES[name](keep_ratio=0.3)
    with torch.no_grad(), tokenprune.patch(llava, strategy, adapter=LlavaFramesAdapter) as handle:
        logits = llava(**inputs).logits[:, -1]
    report = handle.report
    assert [image.n_visual for image in report.images] == [3 * 36, 2 * 36]
    assert [image.n_kept for image in report.images] == [strategy.budget(3 * 36), strategy.budget(2 * 36)]
    ids, real = inputs["input_ids"], inputs["attention_mask"]
    with as_reported(llava, ids, [report]):
        expected = oracle_logits(llava, ids, real, inputs["pixel_values"], dropped_columns(ids, [report]))
    assert_close(logits, expected[:, -1])


def test_a_single_image_has_no_frames(llava: Any) -> None:
    with (
        torch.no_grad(),
        tokenprune.patch(llava, "evs", adapter=LlavaFramesAdapter),
        pytest.raises(PruningError, match="image 1 of the call has no frames to compare"),
    ):
        llava(**prompt([2, 1]))


@pytest.mark.parametrize("sizes", [[(16, 20), (20, 20), (24, 20)], [(16, 20), (20, 16)], [(16, 20), (20, 20)]])
@pytest.mark.parametrize("strategy", ["evs", "fopru"])
def test_frames_of_different_sizes_cannot_be_compared(strategy: str, sizes: list[tuple[int, int]]) -> None:
    """With 20, 25 and 30 visual tokens, frames would be cut at 25 and 50, inside the real ones."""
    family = FAMILIES["llava-pixtral"]
    model, inputs = family.build(), family.prompt([len(sizes)], sizes=sizes)
    with (
        torch.no_grad(),
        tokenprune.patch(model, strategy, adapter=LlavaFramesAdapter),
        pytest.raises(PruningError, match=r"these have 4 x 5, .* visual tokens. Resize them to one size"),
    ):
        model(**inputs)


def test_only_this_familys_own_adapter_is_replaced(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own adapter stays, even one that is derived from it."""
    assert adapter_for_clips(llava, object()) is LlavaFramesAdapter
    assert adapter_for_clips(llava, SimpleNamespace(video_processor=object())) is None
    monkeypatch.setitem(ADAPTERS, type(llava).__name__, type("Own", (LlavaAdapter,), {}))
    assert adapter_for_clips(llava, object()) is None
