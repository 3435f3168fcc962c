"""Dropping between encoder layers if several patches become one visual token, or all images are one row of patches: it
equals masking the patches from that layer on."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from engine.tower.test_between_layers import check_gradients, checkpointing
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import Compose, DivPrune, FlowCut, PixelPrune, PruningError, Selection, ToMe, UnsupportedError
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens

DEPTH = 6
#: The tower's depth, and the settings that depend on it.
DEEPER: dict[str, dict[str, Any]] = {
    "qwen2-vl": {"depth": DEPTH},
    "qwen2.5-vl": {"depth": DEPTH, "fullatt_block_indexes": [1, 3, 4]},
    "qwen3-vl": {"depth": DEPTH, "deepstack_visual_indexes": [1, 3]},
    "glm4v": {"depth": DEPTH},
    "glm-ocr": {"depth": DEPTH},
    "exaone4.5": {"depth": DEPTH, "fullatt_block_indexes": [1, 3, 4]},
    "llava-onevision1.5": {"depth": DEPTH},
    "ovis2.5": {"num_hidden_layers": DEPTH, "layer_types": ["window_attention", "full_attention"] * 3},
    "paddleocr-vl": {"num_hidden_layers": DEPTH},
    "mistral3": {"num_hidden_layers": DEPTH},
    "llava-pixtral": {"num_hidden_layers": DEPTH},
    "internvl": {"num_hidden_layers": DEPTH},
    "qianfan-ocr": {"num_hidden_layers": DEPTH},
}
NAMES = [name for name in DEEPER if name in FAMILIES]
CASES = [
    (name, kind)
    for name in NAMES
    for kind in ("image", "video")
    if kind == "image" or (FAMILIES[name].video_sizes and name != "internvl")
]


@dataclass(frozen=True)
class Wandering(TowerStrategy):
    """Drops tokens by the image's values, different numbers in each frame, after every possible layer."""

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return tuple(range(n_layers))

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        scores = tokens.values.abs().sum((0, 2))[-tokens.n_left :] + tokens.attention.received()
        assert len(scores) == tokens.n_left
        target = self.tower_budget(tokens.n_visual, tokens.n_image)
        if not tokens.n_later_layers:
            return Selection.best(scores, min(target, tokens.n_left))
        fewer = int(1000 * scores[0]) % 2 + (tokens.n_left > 6)
        return Selection.best(scores, max(min(target, tokens.n_left), tokens.n_left - fewer))

    def select(self, tokens: VisualTokens) -> Selection:
        left = tokens.kept_in_tower.kept
        return Selection(left[: self.budget(tokens.n_visual)], tokens.n_visual)


@cache
def model_of(name: str) -> Any:
    family = FAMILIES[name]
    config = family.config()
    for key, value in DEEPER[name].items():
        setattr(config.vision_config, key, value)
    deep = type("Deep", (type(family),), {"config": lambda self: config})
    return deep(name).build()


def prompt_of(name: str, kind: str) -> dict[str, Any]:
    family = FAMILIES[name]
    return family.prompt([2, 1]) if kind == "image" else family.prompt([0, 0], videos_per_row=[1, 1])


def features(model: Any, inputs: dict[str, Any], kind: str) -> list[Tensor]:
    """Return everything that the language model gets from the tower, (visual tokens, width)."""
    pixels = "pixel_values" if kind == "image" else "pixel_values_videos"
    given = {key: inputs[key] for key in (f"{kind}_grid_thw", "image_sizes") if key in inputs}
    with torch.no_grad():
        output = getattr(model.model, f"get_{kind}_features")(inputs[pixels], **given)
    found = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    return [one if isinstance(one, Tensor) and one.ndim == 2 else joined(one) for one in found]


def joined(images: Any) -> Tensor:
    return torch.cat([image.flatten(0, -2) for image in images])


def kept_places(images: list[tokenprune.ImageReport]) -> Tensor:
    ends = torch.tensor([0, *(image.n_visual for image in images)]).cumsum(0)
    return torch.cat([start + image.kept for start, image in zip(ends.tolist(), images, strict=False)])


def check_exact(name: str, kind: str, strategy: tokenprune.Strategy, inputs: dict[str, Any] | None = None) -> Any:
    """Check the features of all tokens that are left, and the model's logits. Returns the report."""
    family, model = FAMILIES[name], model_of(name)
    inputs = prompt_of(name, kind) if inputs is None else inputs
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        logits, report = model(**inputs).logits, handle.report
        ours = features(model, inputs, kind)
    dropped = dropped_columns(inputs["input_ids"], [report])
    with as_reported(model, inputs["input_ids"], [report]):
        theirs = features(model, inputs, kind)
        expected = family.oracle(model, inputs, dropped)
    whole, kept = features(model, inputs, kind), kept_places(report.images)
    for mine, masked, unpruned in zip(ours, theirs, whole, strict=True):
        assert mine.shape == unpruned.shape
        if not any(image.merged is not None for image in report.images):
            assert_close(mine[kept], masked[kept])
    assert (whole[0] - theirs[0])[kept].abs().max() > 1e-4  # so that masking matters
    for row, left in enumerate((inputs["attention_mask"].bool() & ~dropped).sum(1).tolist()):
        real = inputs["attention_mask"][row].bool() & ~dropped[row]
        assert_close(logits[row, -left:], expected[row, real])
    for image in report.images:
        assert image.n_kept == strategy.budget(image.n_visual)
    return report


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_dropping_equals_masking(name: str, kind: str) -> None:
    report = check_exact(name, kind, Wandering(keep_ratio=0.4))
    assert max(len(image.in_tower) for image in report.images) > 1
    assert len({tuple(len(stage.kept) for stage in image.in_tower) for image in report.images}) > 1


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("strategy", [FlowCut(keep_ratio=0.35), ToMe(keep_ratio=0.35), ToMe(keep_ratio=0.15)])
def test_both_strategies(name: str, kind: str, strategy: TowerStrategy) -> None:
    report = check_exact(name, kind, strategy)
    assert all(image.in_tower for image in report.images)
    if isinstance(strategy, ToMe):
        assert all(any(stage.merged is not None for stage in image.in_tower) for image in report.images)


@pytest.mark.parametrize("name", NAMES)
def test_keeping_all_and_removing_are_bitwise_the_unpatched_model(name: str) -> None:
    model, inputs = model_of(name), prompt_of(name, "image")
    with torch.no_grad():
        before = model(**inputs).logits
        for strategy in (FlowCut(keep_ratio=1.0), ToMe(keep_ratio=1.0)):
            with tokenprune.patch(model, strategy):
                assert torch.equal(model(**inputs).logits, before)
        with tokenprune.patch(model, ToMe(keep_ratio=0.3)):
            assert model(**inputs).logits.shape != before.shape
        assert torch.equal(model(**inputs).logits, before)


@pytest.mark.parametrize("name", [name for name in NAMES if FAMILIES[name].class_name.startswith(("Qwen2", "Paddle"))])
@pytest.mark.parametrize("second", [FlowCut(keep_ratio=0.3), ToMe(keep_ratio=0.3)])
def test_before_the_tower_and_in_it(name: str, second: TowerStrategy) -> None:
    """What PixelPrune leaves is pruned further, and each step is in the report."""
    strategy = Compose(PixelPrune(keep_ratio=0.6), second)
    report = check_exact(name, "image", strategy)
    for image in report.images:
        assert image.in_tower[0].layer == 0
        assert len(image.in_tower[0].kept) == PixelPrune(keep_ratio=0.6).budget(image.n_visual)
        assert [step.strategy for step in image.steps] == ["PixelPrune", type(second).__name__]
        assert len(image.in_tower) > 1


@pytest.mark.parametrize("second", [FlowCut(keep=5), ToMe(keep=5)])
def test_what_frames_have_lost_before_the_tower_is_not_back_in_it(second: TowerStrategy) -> None:
    """A frame with few tokens left loses no more in the tower, or only later."""
    model, inputs = model_of("qwen2-vl"), FAMILIES["qwen2-vl"].prompt([0], videos_per_row=[2])
    with torch.no_grad(), tokenprune.patch(model, Compose(PixelPrune(keep=7), second)) as handle:
        model(**inputs)
    for video in handle.report.images:
        assert [len(video.in_tower[0].kept), video.n_kept] == [7, 5]
        for before, after in pairwise(video.in_tower):
            assert set(after.kept.tolist()) < set(before.kept.tolist())


@pytest.mark.parametrize("second", [FlowCut(keep=1), ToMe(keep=1)])
def test_frames_of_which_nothing_is_left_before_the_tower(second: TowerStrategy) -> None:
    model, inputs = model_of("qwen2-vl"), FAMILIES["qwen2-vl"].prompt([0], videos_per_row=[1])
    with torch.no_grad(), tokenprune.patch(model, Compose(PixelPrune(keep=1), second)) as handle:
        model(**inputs)
    (video,) = handle.report.images
    assert video.grid[0] > video.n_kept == 1


@pytest.mark.parametrize("second", [FlowCut(keep=5), ToMe(keep=5)])
def test_frames_that_exceed_the_budget_of_their_video_before_the_tower(second: TowerStrategy) -> None:
    """Three frames may keep 7 visual tokens each, but their video only 7, of which 5 are left after the tower."""
    model, inputs = model_of("glm4v"), FAMILIES["glm4v"].prompt([0], videos_per_row=[2])
    with torch.no_grad(), tokenprune.patch(model, Compose(PixelPrune(keep=7), second)) as handle:
        model(**inputs)
    for video in handle.report.images:
        before, after = video.steps
        assert len(video.in_tower[0].kept) > 7
        assert [len(before.kept), len(after.kept)] == [7, 5]
        assert torch.isin(after.kept, before.kept).all()


@pytest.mark.parametrize("name", ["qwen2-vl", "internvl"])
@pytest.mark.parametrize("first", [FlowCut(keep_ratio=0.6), ToMe(keep_ratio=0.6)])
def test_in_the_tower_and_after_it(name: str, first: TowerStrategy) -> None:
    check_exact(name, "image", Compose(first, DivPrune(keep_ratio=0.3)))


def test_gradients_are_those_of_the_masked_tower() -> None:
    name = "qwen2.5-vl"
    check_gradients(FAMILIES[name], model_of(name), FAMILIES[name].prompt([1]), ToMe(keep_ratio=0.4), 1e-4)


def test_windows_are_never_selected_in() -> None:
    """Selection happens only at layers that attend to the whole image, except the last one."""
    seen: list[tuple[int, int]] = []

    @dataclass(frozen=True)
    class Asking(Wandering):
        def select_in_tower(self, tokens: TowerTokens) -> Selection:
            seen.append((tokens.layer, tokens.n_later_layers))
            return super().select_in_tower(tokens)

    model, inputs = model_of("qwen2.5-vl"), FAMILIES["qwen2.5-vl"].prompt([1])
    with torch.no_grad(), tokenprune.patch(model, Asking(keep_ratio=0.5)):
        model(**inputs)
    assert seen == [(1, 2), (3, 1), (4, 0)]


# Refusals.


def test_a_tower_of_windows_alone_is_refused() -> None:
    model = FAMILIES["qwen2.5-vl"].build()
    model.model.visual.config.fullatt_block_indexes = [2]
    with pytest.raises(UnsupportedError, match=r"all its layers before the last attend within small windows"):
        tokenprune.patch(model, FlowCut())
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("strategy", [FlowCut(keep=5), ToMe(keep=5)])
@pytest.mark.parametrize(("name", "kind"), [("internvl", "image"), ("glm4v", "video")])
def test_a_count_where_the_tower_does_not_know_the_images(name: str, kind: str, strategy: TowerStrategy) -> None:
    """Every tile keeps that many, and after the tower the image's budget is left."""
    report = check_exact(name, kind, strategy)
    assert all(image.n_kept == 5 for image in report.images)
    assert any(len(image.in_tower[-1].kept) > 5 for image in report.images)


def test_a_count_where_it_does() -> None:
    model, inputs = model_of("qwen2-vl"), prompt_of("qwen2-vl", "video")
    with torch.no_grad(), tokenprune.patch(model, FlowCut(keep=5)) as handle:
        model(**inputs)
    assert [image.n_kept for image in handle.report.images] == [5, 5]
    in_tower = [len(image.in_tower[-1].kept) for image in handle.report.images]
    assert in_tower == [6, 6]  # 3 in each of 2 frames, and 2 in each of 3 frames


def test_images_that_do_not_fill_squares() -> None:
    model = model_of("mistral3")
    inputs = FAMILIES["mistral3"].prompt([1])
    sizes = torch.tensor([[20, 32]])  # 5 x 8 patches
    with (
        torch.no_grad(),
        tokenprune.patch(model, FlowCut()),
        pytest.raises(PruningError, match="5 x 8 patches does not divide into squares of 2 x 2"),
    ):
        model.model.get_image_features(inputs["pixel_values"], image_sizes=sizes)


def test_checkpointing_where_the_attention_gets_the_mask() -> None:
    """Its hooks run again in the backward pass, which no longer has the mask."""
    model, inputs = FAMILIES["internvl"].build().train(), FAMILIES["internvl"].prompt([1])
    checkpointing(model)
    with (
        tokenprune.patch(model, FlowCut(keep_ratio=0.4)),
        pytest.raises(
            PruningError, match=r"again in the backward pass\. Switch it off, or call eval\(\) on the tower\."
        ),
    ):
        model(**inputs)
