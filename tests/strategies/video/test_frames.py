"""What stands beside the frames of a video, and strategies that are composed."""

from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.models.tiled import inputs_of, model_of, reported

import tokenprune
from tokenprune import EVS, STRATEGIES, Compose, DivPrune, PruningError, SettingError, UnsupportedError, VidCom2
from tokenprune.adapters import adapter_for
from tokenprune.adapters.layouts.frames import frames_layout
from tokenprune.adapters.layouts.newlines import ended_by_newline
from tokenprune.tokens import Frames, Layout, VisualTokens

VIDEO = [name for name, cls in STRATEGIES.items() if "frames" in cls().needs]


def frames_of(layout: Layout) -> Frames:
    frames = Frames.of(layout)
    assert frames is not None
    return frames


def test_a_raster_of_several_frames() -> None:
    frames = frames_of(Layout.raster((3, 2, 2)))
    assert frames.frame_tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert frames.extra_tokens.tolist() == []
    assert (frames.n_frames, frames.n_places) == (3, 4)


def test_a_raster_of_one_frame_stands_beside_the_others() -> None:
    frames = frames_of(Layout(((1, 1, 2), (2, 1, 2))))
    assert frames.frame_tokens.tolist() == [[2, 3], [4, 5]]
    assert frames.extra_tokens.tolist() == [0, 1]


def test_a_newline_at_the_end_stands_beside_the_frames() -> None:
    frames = frames_of(ended_by_newline(frames_layout(2, 1, 3)))
    assert frames.frame_tokens.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert frames.extra_tokens.tolist() == [6]


def test_newlines_at_the_ends_of_rows_stand_beside_the_frames() -> None:
    newlines = (torch.arange(12) + 1) % 3 == 0  # 2 frames of 2 x 2, and HY-V4-VL's newlines
    frames = frames_of(Layout(((2, 2, 3),), newlines=newlines))
    assert frames.frame_tokens.tolist() == [[0, 1, 3, 4], [6, 7, 9, 10]]
    assert frames.extra_tokens.tolist() == [2, 5, 8, 11]


def test_a_cls_token_of_each_frame_stands_beside_it() -> None:
    (video,) = reported("video-llava", FAMILIES["video-llava"].prompt([0], videos_per_row=[1]), EVS(keep_ratio=0.5))
    frames = frames_of(video.layout)
    n = frames.n_places
    assert frames.extra_tokens.tolist() == [0, n + 1]
    assert frames.frame_tokens.tolist() == [list(range(1, n + 1)), list(range(n + 2, 2 * n + 2))]
    assert {0, n + 1} <= set(video.kept.tolist())


@pytest.mark.parametrize(
    "layout",
    [
        Layout.raster((1, 4, 4)),
        Layout(((1, 2, 2), (1, 2, 3)), tiles=torch.zeros(10).long()),  # an overview and a canvas
        ended_by_newline(frames_layout(1, 2, 2)),
        Layout(((2, 2, 2), (2, 2, 2))),  # which of two?
    ],
)
def test_an_image_and_a_single_frame_have_none(layout: Layout) -> None:
    assert Frames.of(layout) is None
    tokens = VisualTokens(torch.randn(layout.n_visual, 4), layout, 2)
    with pytest.raises(PruningError, match=r"image 2 of the call has no frames to compare.*Sample more frames"):
        EVS(keep_ratio=0.5).select(tokens)


@pytest.mark.parametrize(
    ("n_kept", "expected"), [(1, []), (3, [11]), (4, [5, 11]), (6, [2, 5, 11]), (8, [2, 5, 8, 11]), (9, [2, 5, 8, 11])]
)
def test_what_is_kept_beside_the_frames_is_at_most_half(n_kept: int, expected: list[int]) -> None:
    frames = Frames(torch.arange(12).view(4, 3), torch.tensor([2, 5, 8, 11]))
    assert frames.kept_extra_tokens(n_kept).tolist() == expected


def test_what_stands_beside_the_frames_has_the_highest_score() -> None:
    layout = ended_by_newline(frames_layout(2, 1, 3))
    features = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    scores = VidCom2(keep_ratio=0.5).select(VisualTokens(features, layout)).scores
    assert scores[6] == scores[:6].max()


def test_each_frame_comes_in_float32_and_without_gradients() -> None:
    features = torch.randn(6, 2, dtype=torch.bfloat16, requires_grad=True)
    first, second = frames_of(Layout.raster((2, 1, 3))).each(features)
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert torch.equal(second, features[3:].detach().float())


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("unit", ["image", "tile"])
def test_the_budget_is_one_per_video(name: str, unit: Any) -> None:
    assert STRATEGIES[name]().budget_per == "video"
    assert not STRATEGIES[name]().selects_per_tile
    with pytest.raises(SettingError, match=f"unknown budget_per '{unit}'.*Write budget_per='video'"):
        STRATEGIES[name](budget_per=unit)
    with pytest.raises(SettingError, match="Write budget_per='image'"):
        tokenprune.Random(budget_per="video")


@pytest.mark.parametrize("name", VIDEO)
def test_a_model_without_videos_is_refused(name: str, llava: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"needs videos whose frames it can compare.*use a strategy for images"):
        tokenprune.patch(llava, name)


@pytest.mark.parametrize("case", ["kimi-k25", "minicpmv4_6", "internvl"])
def test_models_that_take_videos_apart_say_so(case: str) -> None:
    adapter = adapter_for(FAMILIES[case].build())
    assert "frames" not in adapter.offers
    reason = adapter.why_not("frames")
    assert reason is not None
    assert "frame" in reason


def test_an_image_in_a_call_with_videos_is_an_error() -> None:
    inputs = FAMILIES["qwen2-vl"].prompt([1], videos_per_row=[1])
    with (
        torch.no_grad(),
        tokenprune.patch(model_of("qwen2-vl"), EVS(keep_ratio=0.5)),
        pytest.raises(PruningError, match="has no frames to compare"),
    ):
        model_of("qwen2-vl")(**inputs)


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("case", ["llava-onevision", "llava-next-video", "video-llava", "qwen2-vl", "qwen3-vl"])
def test_budgets_are_exact(name: str, case: str) -> None:
    """For every video of a batch, at any ratio from less than one frame to all but one token."""
    for keep_ratio in (0.02, 0.1, 0.37, 0.9, 1.0):
        strategy = STRATEGIES[name](keep_ratio=keep_ratio)
        for video in reported(case, inputs_of(case, True), strategy):
            assert video.modality == "video"
            assert video.n_kept == strategy.budget(video.n_visual)
            assert video.kept.tolist() == sorted(set(video.kept.tolist()))


# A strategy for videos can only be the first of several.


def test_others_may_prune_what_it_leaves() -> None:
    strategy = Compose(EVS(keep_ratio=0.6), DivPrune(keep_ratio=0.25))
    for video in reported("qwen2-vl", inputs_of("qwen2-vl", True), strategy):
        alone = reported("qwen2-vl", inputs_of("qwen2-vl", True), EVS(keep_ratio=0.6))
        assert video.n_kept == strategy.budget(video.n_visual) < alone[0].n_kept


def test_it_does_not_prune_what_others_leave() -> None:
    with pytest.raises(SettingError, match=r"EVS works on whole images only.*Put it first"):
        Compose(DivPrune(), EVS())
