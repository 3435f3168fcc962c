"""Qwen-VL: position IDs of several components, DeepStack, windows and merge blocks of the vision tower, videos."""

from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close, dropped_columns
from helpers.families import FAMILIES
from helpers.families.base import CACHE, Inputs

import tokenprune
from tokenprune import FoPru, Grid
from tokenprune.adapters import adapter_for
from tokenprune.sequence.packing import pack

NAMES = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"]
STEPS = 4


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


class Called:
    """Records the arguments that the language model is called with, after the patch's own hook."""

    def __init__(self, model: Any) -> None:
        self.calls: list[dict[str, Any]] = []
        self.hook = model.model.language_model.register_forward_pre_hook(self.see, with_kwargs=True)

    def see(self, module: Any, args: Any, kwargs: Any) -> None:
        self.calls.append(dict(kwargs))

    def __enter__(self) -> list[dict[str, Any]]:
        return self.calls

    def __exit__(self, *args: Any) -> None:
        self.hook.remove()


def answered(model: Any, inputs: dict[str, Any], **settings: Any) -> Any:
    return model.generate(
        **inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True, **settings
    )


# Position IDs.


@pytest.mark.parametrize("in_loop", [False, True])
def test_compact_ids_after_a_video_whose_time_runs_ahead(in_loop: bool) -> None:
    """`generate` continues from the last text token, a loop without position IDs from the highest ID."""
    family, model = FAMILIES["qwen2.5-vl"], model_of("qwen2.5-vl")
    inputs = {**family.prompt([1, 0], videos_per_row=[1, 1]), "second_per_grid_ts": torch.full((3,), 60.0)}
    last = family.position_ids(model, inputs)[..., -1]
    patched = tokenprune.patch(model, Grid(keep=3), position_ids="compact")
    with torch.no_grad(), patched, Called(model) as calls:
        if in_loop:
            mask, out = inputs["attention_mask"], model(**inputs, use_cache=True)
            longer = torch.cat([mask, mask[:, -1:]], 1)
            model(input_ids=inputs["input_ids"][:, -1:], attention_mask=longer, **{CACHE: out[CACHE]})
        else:
            answered(model, inputs)
    highest = [call["position_ids"][-3:].amax((0, 2)) for call in calls]
    if in_loop:
        ahead = model.model.rope_deltas[:, 0] + inputs["attention_mask"].sum(1) - 1 - last[0]
        assert (ahead > 0).all()
        assert torch.equal(highest[1], highest[0] + 1 + ahead)
    else:
        for step in range(1, STEPS):
            assert torch.equal(highest[step], highest[0] + step)


@pytest.mark.parametrize("name", NAMES)
def test_compact_leaves_a_row_that_loses_nothing(name: str) -> None:
    family, model = FAMILIES[name], model_of(name)
    inputs = family.prompt([1, 1], sizes=[(32, 32), (48, 32)])
    patched = tokenprune.patch(model, Grid(keep=16), position_ids="compact")
    with torch.no_grad(), patched as handle, Called(model) as calls:
        answered(model, inputs)
    assert [image.n_kept for image in handle.report.images] == [16, 16]
    assert [image.n_visual for image in handle.report.images] == [16, 24]
    whole, n_first = family.position_ids(model, inputs), int(inputs["attention_mask"][0].sum())
    assert torch.equal(calls[0]["position_ids"][1:, 0, -n_first:], whole[:, 0, -n_first:])
    assert torch.equal(calls[1]["position_ids"][1:, 0], whole[:, 0, -1:] + 1)


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("name", NAMES)
def test_a_loop_without_ids_goes_on_at_the_logical_length(name: str, position_ids: Any, with_mask: bool) -> None:
    """The base model continues with its `rope_deltas`, from the cache's length or from the mask over all of it."""
    family, model = FAMILIES[name], model_of(name)
    inputs = family.prompt([1, 2]) if with_mask else family.prompt([1])
    mask, logits, answers = inputs["attention_mask"], [], inputs["input_ids"][:, :0]
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.3), position_ids=position_ids) as handle:
        store, new = None, {**inputs, "attention_mask": mask if with_mask else None}
        for _ in range(STEPS):
            out = model(**new, **{CACHE: store}, use_cache=True)
            store = out[CACHE]
            logits.append(out.logits[:, -1])
            answers = torch.cat([answers, logits[-1][:, :90].argmax(-1, keepdim=True)], 1)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            new = {"input_ids": answers[:, -1:], "attention_mask": mask if with_mask else None}
            assert store.get_seq_length() == mask.shape[1] - 1
    whole = family.continued(inputs, answers)
    dropped = dropped_columns(whole["input_ids"], [handle.report])
    ids = family.position_ids(model, whole)
    columns = whole["attention_mask"].cumsum(1)[:, -STEPS:] - 1
    ids[..., -STEPS:] = columns + model.model.rope_deltas  # up to 5.1x an image's first component runs ahead of these
    if position_ids == "compact":
        moved = ids[:, :, -STEPS - 1 :] - ids[:, :, -STEPS - 1, None]
        ids = family.compact_ids(model, whole, dropped).expand(3, -1, -1).clone()
        ids[..., -STEPS - 1 :] = ids[..., -STEPS - 1, None] + moved
    expected = family.oracle(model, whole, dropped, ids)
    assert_close(torch.stack(logits, 1), expected[:, -STEPS - 1 : -1])


def joined(first: Any, then: Any) -> Inputs:
    """Return the inputs of a conversation whose rows have at most one image per turn."""
    out = {key: torch.cat([first[key], then[key]], 1) for key in ("input_ids", "attention_mask", "mm_token_type_ids")}
    turns = [turn.images for turn in (first, then) if turn.images]
    by_row = [image for row in zip(*turns, strict=True) for image in row]
    return Inputs({**out, **{key: torch.cat([image[key] for image in by_row]) for key in by_row[0]}}, by_row)


@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("name", NAMES)
def test_a_second_image_in_a_later_turn(name: str, position_ids: Any) -> None:
    """transformers numbers the text of a later turn itself, but the position IDs of a later image must be passed."""
    family, model = FAMILIES[name], model_of(name)
    turns = [
        family.prompt([1, 1], seed=1),
        family.prompt([0, 0], seed=2),
        family.prompt([1, 1], seed=3, sizes=[(24, 40), (32, 24)]),
    ]
    whole, store, reports, ahead = {}, None, [], False
    for number, turn in enumerate(turns):
        whole = joined(whole, turn) if whole else turn
        given = {**whole, **{CACHE: store}} if number else dict(whole)
        given = {k: v for k, v in given.items() if k not in ("pixel_values", "image_grid_thw")}
        given |= {k: turn[k] for k in ("pixel_values", "image_grid_thw") if k in turn}
        ids = family.position_ids(model, whole)
        if number == 0:  # some versions let an image's first component run ahead, and number later text from there
            ahead = bool((ids.amax((0, 2)) > ids[0, :, -1]).any())
        if number == 2 or (number == 1 and ahead):
            given["position_ids"] = ids
        if number == 1:
            del given["mm_token_type_ids"]
        with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.3), position_ids=position_ids) as handle:
            out = answered(model, given)
            reports += [handle.report] if number != 1 else []
        store = out[CACHE]
        whole = family.continued(whole, out.sequences[:, -STEPS:])
        assert store.get_seq_length() == whole["input_ids"].shape[1] - 1
        dropped = dropped_columns(whole["input_ids"], reports)
        ids = family.compact_ids(model, whole, dropped) if position_ids == "compact" else None
        expected = family.oracle(model, whole, dropped, ids)
        assert_close(torch.stack(out.logits, 1), expected[:, -STEPS - 1 : -1])


# DeepStack.


def test_holes_are_no_visual_tokens() -> None:
    """A hole in a packed row points to column 0, which may be a visual token."""
    adapter = adapter_for(model_of("qwen3-vl"))
    keep = torch.tensor([[1, 0, 0, 0, 1], [1, 1, 0, 1, 1]]).bool()
    visual = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 0]]).bool()
    features = torch.arange(7.0)[:, None]
    kwargs: dict[str, Any] = {"visual_pos_masks": visual, "deepstack_visual_embeds": [features]}
    adapter.prune_arguments(kwargs, pack(keep, [2, 4]), 0)
    assert kwargs["visual_pos_masks"].tolist() == [[False, False, True, False], [False, True, True, False]]
    assert kwargs["deepstack_visual_embeds"][0][:, 0].tolist() == [0, 4, 6]


# Videos.


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_for_every_frame(name: str) -> None:
    family, model = FAMILIES[name], model_of(name)
    inputs = family.prompt([0], videos_per_row=[2])
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25, budget_per="tile")) as handle:
        model(**inputs)
    first, second = handle.report.images
    assert [image.modality for image in (first, second)] == ["video", "video"]
    assert [int(((first.kept >= a) & (first.kept < a + 12)).sum()) for a in (0, 12)] == [3, 3]
    counts = [int(((second.kept >= a) & (second.kept < a + 9)).sum()) for a in (0, 9, 18)]
    assert sum(counts) == second.n_kept == 7
    assert max(counts) - min(counts) <= 1


def test_a_failed_call_of_a_feature_function_leaves_no_trace() -> None:
    family, model = FAMILIES["qwen3-vl"], model_of("qwen3-vl")
    inputs = family.prompt([0], videos_per_row=[1])
    with torch.no_grad(), tokenprune.patch(model, "random", keep_ratio=0.25) as handle:
        with pytest.raises(Exception):  # noqa: B017, PT011 (whatever HF raises)
            model.model.get_video_features(inputs["pixel_values_videos"][:3], inputs["video_grid_thw"])
        model(**inputs)
        assert handle.report.n_kept == 6


def test_videos_encoded_into_a_tuple() -> None:
    """Videos are encoded by the function for images."""
    family = FAMILIES["qwen3-vl"]
    model, inputs = family.build(), family.prompt([0], videos_per_row=[1])
    videos = (inputs["pixel_values_videos"], inputs["video_grid_thw"])
    model.config.return_dict = False
    with torch.no_grad():
        plain = model.get_video_features(*videos)
        with tokenprune.patch(model, FoPru()):
            patched = model.get_video_features(*videos)
    assert type(patched) is type(plain) is tuple
    assert torch.equal(patched[0], plain[0])
