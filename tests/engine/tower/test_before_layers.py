"""Patches are dropped before the vision tower: the rest is as if they had been masked there."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import PixelPrune, PruningError, Selection
from tokenprune.adapters import adapter_for
from tokenprune.adapters.tested import read_tested
from tokenprune.strategy import PatchStrategy
from tokenprune.tokens import PatchTokens, VisualTokens

NAMES = [name for name, one in read_tested().items() if "kept_before_tower" in one.statistics]
CASES = [
    (name, kind)
    for name in NAMES
    if name in FAMILIES
    for kind in ("image", "video")
    if kind == "image" or FAMILIES[name].video_sizes
]


@cache
def model_of(name: str, attention: str = "sdpa") -> Any:
    return FAMILIES[name].build(attention)


def repetitive(name: str, kind: str, seed: int = 0) -> dict[str, Any]:
    """Return a prompt of three images or two videos in which most visual tokens show one of two patterns, and some
    their own."""
    family, adapter = FAMILIES[name], adapter_for(model_of(name))
    inputs = family.prompt([2, 1]) if kind == "image" else family.prompt([0, 0], videos_per_row=[1, 1])
    pixels = "pixel_values" if kind == "image" else "pixel_values_videos"
    row = adapter.tower.row.describe(inputs[f"{kind}_grid_thw"], adapter.vision_tower.config)
    shown = torch.randint(0, 7, (int(row.tokens.max()) + 1,), generator=torch.Generator().manual_seed(seed))
    patches = inputs[pixels].clone()
    for same in (range(0, 3), range(3, 6)):
        tokens = torch.isin(shown, torch.tensor(same)).nonzero()[:, 0].tolist()
        for token in tokens[1:]:
            n_patches = int((row.tokens == token).sum())
            patches[row.tokens == token] = patches[row.tokens == tokens[0]][:n_patches]
    return {**inputs, pixels: patches}


def encoded(model: Any, inputs: dict[str, Any], kind: str, strategy: tokenprune.Strategy | None = None) -> list[Tensor]:
    """Return the features (tokens, width) of every image, from the base model's own function."""
    pixels = "pixel_values" if kind == "image" else "pixel_values_videos"
    encode = getattr(model.model, f"get_{kind}_features")
    if strategy is not None:
        with tokenprune.patch(model, strategy):
            return encoded(model, inputs, kind)
    with torch.no_grad():
        output = encode(inputs[pixels], inputs[f"{kind}_grid_thw"])
    return [image.flatten(0, -2) for image in output.pooler_output]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_is_left_is_as_if_the_others_were_masked_in_the_tower(name: str, kind: str) -> None:
    """Checks the features of all tokens that are left, and the model's logits."""
    family, model, inputs = FAMILIES[name], model_of(name), repetitive(name, kind)
    with torch.no_grad(), tokenprune.patch(model, PixelPrune()) as handle:
        logits, report = model(**inputs).logits, handle.report
    ours = encoded(model, inputs, kind, PixelPrune())
    assert report.images
    for image in report.images:
        assert 0 < image.n_kept < image.n_visual
        assert [(stage.layer, stage.kept.tolist()) for stage in image.in_tower] == [(0, image.kept.tolist())]
    dropped = dropped_columns(inputs["input_ids"], [report])
    with as_reported(model, inputs["input_ids"], [report]):
        theirs = encoded(model, inputs, kind)
        expected = family.oracle(model, inputs, dropped)
    whole = encoded(model, inputs, kind)
    for image, mine, masked, unpruned in zip(report.images, ours, theirs, whole, strict=True):
        assert mine.shape == unpruned.shape
        assert_close(mine[image.kept], masked[image.kept])
        assert (unpruned - masked)[image.kept].abs().max() > 1e-3  # so that masking matters
    for row, left in enumerate((inputs["attention_mask"].bool() & ~dropped).sum(1).tolist()):
        real = inputs["attention_mask"][row].bool() & ~dropped[row]
        assert_close(logits[row, -left:], expected[row, real])


@pytest.mark.parametrize("name", [name for name in NAMES if name in FAMILIES])
def test_an_image_without_repetitions_is_untouched(name: str) -> None:
    """It is bitwise the same."""
    model, inputs = model_of(name), FAMILIES[name].prompt([2, 1])
    with torch.no_grad():
        before = model(**inputs).logits
        with tokenprune.patch(model, PixelPrune()) as handle:
            assert torch.equal(model(**inputs).logits, before)
        assert torch.equal(model(**inputs).logits, before)
    assert handle.report.n_kept == handle.report.n_visual
    assert not any(image.in_tower for image in handle.report.images)


@dataclass(frozen=True)
class Every(PatchStrategy):
    """Keeps every n-th token of an image."""

    n: int = 3

    def budget(self, n_visual: int) -> int:
        return n_visual

    def select_patches(self, tokens: PatchTokens) -> Selection:
        return Selection(torch.arange(0, tokens.n_visual, self.n), tokens.n_visual)


#: A family for every way to read queries and keys: from one module or two, normalised (GLM-OCR) or not.
READ = ["qwen2.5-vl", "qwen3-vl", "paddleocr-vl", "kimi-k25", "glm-ocr", "ovis2.5"]


@pytest.mark.parametrize("family", [name for name in READ if name in FAMILIES])  # not "name": all run every day
def test_attention_of_what_is_left(family: str) -> None:
    """A strategy reads the attention among the patches that were encoded."""
    seen: dict[str, VisualTokens] = {}

    @dataclass(frozen=True)
    class Reading(Every):
        needs = frozenset({"kept_before_tower", "vision_attention"})

        def select(self, tokens: VisualTokens) -> Selection:
            seen[f"{tokens.image}"] = tokens
            return super().select(tokens)

    model, inputs = model_of(family), FAMILIES[family].prompt([1])
    with torch.no_grad(), tokenprune.patch(model, Reading()):
        model(**inputs)
    (tokens,) = seen.values()
    scores = tokens.vision_attention.received()
    left = tokens.kept_before_tower.kept
    gone = torch.ones(tokens.n_visual).bool().index_fill(0, left, False)
    assert not scores[gone].any()
    n_patches = inputs["image_grid_thw"].prod() / tokens.n_visual
    torch.testing.assert_close(scores[left].sum() * n_patches, len(left) * n_patches)  # rows add up to 1


@pytest.mark.parametrize("family", [name for name in READ if name in FAMILIES])
def test_as_many_patches_left_as_there_are_visual_tokens(family: str) -> None:
    """A quarter of the patches is left, and a visual token has four, so the lengths of both rows are the same."""
    model, inputs = model_of(family), FAMILIES[family].prompt([1])
    quarter = PixelPrune(keep_ratio=0.25)
    with torch.no_grad(), tokenprune.patch(model, quarter) as handle:
        model(**inputs)
        report = handle.report
    (ours,) = encoded(model, inputs, "image", quarter)
    with as_reported(model, inputs["input_ids"], [report]):
        (expected,) = encoded(model, inputs, "image")
    (image,) = report.images
    assert (image.n_kept, image.n_visual) == (4, 16)
    assert ours.shape == expected.shape
    assert_close(ours.view(16, -1)[image.kept], expected.view(16, -1)[image.kept])


@pytest.mark.parametrize("budget", [{"keep_ratio": 0.55}, {"keep": 3}])
def test_frames_encoded_as_images_share_the_budget_of_their_video(budget: dict[str, Any]) -> None:
    """Frames have 12 or 9 visual tokens: budgets rounded up frame by frame would exceed the video's."""
    model, inputs = model_of("glm4v"), FAMILIES["glm4v"].prompt([0, 0], videos_per_row=[1, 1])
    strategy = PixelPrune(**budget)
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        model(**inputs)
    for video in handle.report.images:
        ((_, encoded),) = ((stage.layer, stage.kept) for stage in video.in_tower)
        assert video.grid[0] > 1
        assert len(encoded) >= video.n_kept == strategy.budget(video.n_visual)
        assert torch.isin(video.kept, encoded).all()


def test_what_a_patch_strategy_left_of_each_frame() -> None:
    model, inputs = model_of("qwen2-vl"), FAMILIES["qwen2-vl"].prompt([0], videos_per_row=[1])
    with torch.no_grad(), tokenprune.patch(model, Every()) as handle:
        model(**inputs)
        (whole,) = handle.report.images
    with torch.no_grad(), tokenprune.patch(model, Every(budget_per="tile")) as handle:
        model(**inputs)
        (by_frame,) = handle.report.images
    assert by_frame.kept.tolist() == whole.kept.tolist()


def test_gradients_reach_what_is_left_only() -> None:
    model, inputs = model_of("qwen2.5-vl"), FAMILIES["qwen2.5-vl"].prompt([1])
    pixels = inputs["pixel_values"].clone().requires_grad_()
    with tokenprune.patch(model, Every()):
        model(**{**inputs, "pixel_values": pixels}).logits.sum().backward()
    moved = pixels.grad.view(-1, 4, pixels.shape[1]).abs().sum((1, 2)) > 0
    assert moved.nonzero()[:, 0].tolist() == list(range(0, len(moved), 3))


def test_layers_that_the_tower_does_not_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, nothing would be pruned, silently."""
    model, inputs = FAMILIES["qwen2-vl"].build(), FAMILIES["qwen2-vl"].prompt([1])
    with tokenprune.patch(model, Every()):
        layers = model.model.visual.blocks
        model.model.visual.blocks = torch.nn.ModuleList([FAMILIES["qwen2-vl"].build().model.visual.blocks[0]])
        with pytest.raises(PruningError, match="names encoder layers that the vision tower does not call"):
            model(**inputs)
        model.model.visual.blocks = layers


def test_text_alone_is_none_of_its_business() -> None:
    model, inputs = model_of("qwen2-vl"), FAMILIES["qwen2-vl"].prompt([0, 0])
    with torch.no_grad():
        before = model(**inputs).logits
        with tokenprune.patch(model, PixelPrune()):
            assert torch.equal(model(**inputs).logits, before)
