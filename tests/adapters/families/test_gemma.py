"""Gemma, frames as images in LLaVA, and Unlimited-OCR."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, oracle_logits
from helpers.families import FAMILIES, Family
from helpers.tiny import prompt
from torch import Tensor
from transformers import DynamicCache

import tokenprune
from tokenprune import STRATEGIES, PruningError, Random
from tokenprune.adapters import ADAPTERS
from tokenprune.adapters.families.gemma4 import sizes_of
from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.adapters.families.llava_frames import LlavaFramesAdapter
from tokenprune.adapters.families.unlimited_ocr import canvas_and_whole
from tokenprune.evals.models.video_prompts import adapter_for_clips


def test_tiles_whose_places_do_not_begin_at_zero() -> None:
    rectangle = torch.cartesian_prod(torch.arange(1, 3), torch.arange(2, 5)).flip(1)  # (column, row): 2 rows, 3 columns
    padding = torch.full((2, 2), -1)
    assert sizes_of(torch.stack([torch.cat([rectangle, padding])])) == [(2, 3)]
    assert sizes_of(torch.tensor([[[1, 1]]])) == [(1, 1)]


def test_patches_of_gemma_4_that_fill_no_squares() -> None:
    """Its processor makes no such images. In rows of 5 patches, transformers would join the last one with the first of
    the next row; for 5 rows it raises an error of its own."""
    family = FAMILIES["gemma4"]
    model, inputs = family.build(), family.prompt([1], sizes=[(16, 20)])
    with tokenprune.patch(model, Random(keep_ratio=0.5)):
        with pytest.raises(PruningError, match=r"4 x 5 patches does not divide into squares of 2 x 2"):
            model(**inputs)
        assert model(**family.prompt([1])).logits is not None


# A LLaVA that gets the frames of a video as images: strategies for videos see one video per row.


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


# Unlimited-OCR: answer tokens see the whole prompt and a window of the answer, with and without padding.


WINDOW, STEPS = 3, 9


def short_window() -> Any:
    family: Any = FAMILIES["unlimited-ocr"]
    return type(family)(family.name, text_config={**family.stored["text_config"], "sliding_window": WINDOW})


def expected(family: Family, model: Any, whole: dict[str, Any], dropped: Tensor, n_prompt: int) -> Tensor:
    """Return the logits of one uncached forward of the unpatched model, with masks made by hand."""
    length = whole["input_ids"].shape[1]
    place = torch.arange(length)
    age = place[:, None] - place
    seen = (age >= 0) & ((place < n_prompt) | (age < WINDOW))
    seen = seen & (whole["attention_mask"].bool() & ~dropped)[:, None]
    mask = (seen | torch.eye(length, dtype=torch.bool))[:, None]
    given = {**whole, "attention_mask": dict.fromkeys(("full_attention", "reference_sliding_attention"), mask)}
    with torch.no_grad():
        return model(**given, position_ids=family.position_ids(model, whole), use_cache=False).logits


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("images", [[1], [1, 2]])
def test_answers_longer_than_the_window(images: list[int], cache: str | None) -> None:
    family = short_window()
    model, inputs = family.build(), family.prompt(images)
    settings: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False, "cache_implementation": cache}
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.4)) as handle:
        out = model.generate(**inputs, **settings, return_dict_in_generate=True, output_logits=True)
    whole = family.continued(inputs, out.sequences[:, -STEPS:])
    dropped = dropped_columns(out.sequences, [handle.report])
    logits = expected(family, model, whole, dropped, inputs["input_ids"].shape[1])
    assert_close(torch.stack(out.logits, 1), logits[:, -STEPS - 1 : -1])
    everything = expected(family, model, whole, dropped, whole["input_ids"].shape[1])
    assert (everything - logits)[:, -1].abs().max() > 1e-2  # the window matters


def test_a_cache_that_was_not_told_the_length_of_the_prompt() -> None:
    family = short_window()
    model, inputs = family.build(), family.prompt([1, 2])
    cache, answers, logits = DynamicCache(config=model.config), inputs["input_ids"][:, :0], []
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.4)) as handle:
        for step in range(STEPS):
            whole = family.continued(inputs, answers)
            new = inputs if step == 0 else {"input_ids": answers[:, -1:]}
            ids = family.position_ids(model, whole)[:, -new["input_ids"].shape[1] :]
            out = model(**{**new, "attention_mask": whole["attention_mask"]}, position_ids=ids, cache=cache)
            logits.append(out.logits[:, -1])
            answers = torch.cat([answers, logits[-1][:, :90].argmax(-1, keepdim=True)], 1)
    whole = family.continued(inputs, answers)
    dropped = dropped_columns(whole["input_ids"], [handle.report])
    oracle = expected(family, model, whole, dropped, inputs["input_ids"].shape[1])
    assert_close(torch.stack(logits, 1), oracle[:, -STEPS - 1 : -1])


def test_grids_may_be_a_tensor() -> None:
    family = FAMILIES["unlimited-ocr"]
    model, inputs = family.build(), family.prompt([1, 2])
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.4)) as handle:
        logits, layouts = model(**inputs).logits, [image.grids for image in handle.report.images]
        assert torch.equal(model(**{**inputs, "patches_grid": torch.tensor(inputs["patches_grid"])}).logits, logits)
        assert [image.grids for image in handle.report.images] == layouts


def test_a_canvas_by_hand() -> None:
    """Two crops of 2 x 2 visual tokens side by side, and the whole image with 2 x 2."""
    layout = canvas_and_whole(1, 2, 2, 2)
    assert layout.grids == ((1, 2, 5), (1, 2, 3), (1, 1, 1))
    assert layout.tiles is not None
    assert layout.newlines is not None
    assert layout.tiles.tolist() == [0, 0, 1, 1, 1] * 2 + [2] * 7
    assert layout.newlines.nonzero()[:, 0].tolist() == [4, 9, 12, 15, 16]
    assert layout.n_tiles == 3
    alone = canvas_and_whole(0, 0, 2, 2)
    assert alone.grids == ((1, 2, 3), (1, 1, 1))
    assert alone.n_visual == 7
