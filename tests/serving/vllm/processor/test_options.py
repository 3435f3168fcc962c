"""Options of a request that do not fit the vision tower are refused, because it would fail and end the engine."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tokenprune.errors import SettingError
from tokenprune.serving.vllm.processor.options import check_patch_options, check_tiles

PROCESSOR = SimpleNamespace(
    image_processor=SimpleNamespace(patch_size=14, merge_size=2, temporal_patch_size=2),
    video_processor=SimpleNamespace(patch_size=16, merge_size=2, temporal_patch_size=4),
)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch_size": 7}, "patch_size=7 does not fit this model, which was trained with 14"),
        ({"max_pixels": 9, "merge_size": 1}, "merge_size=1 does not fit this model, which was trained with 2"),
        ({"images_kwargs": {"patch_size": 16}}, r"images_kwargs\.patch_size=16 .* trained with 14"),
        ({"videos_kwargs": {"temporal_patch_size": 2}}, r"videos_kwargs\.temporal_patch_size=2 .* trained with 4"),
        ({"merge_kernel_size": [1, 1]}, r"merge_kernel_size=\[1, 1\] does not fit this model"),
        ({"downsample_factor": 4}, "downsample_factor=4 does not fit this model, which has no such setting"),
        ({"pooling_size": [1, 1]}, r"pooling_size=\[1, 1\] does not fit this model"),
        ({"overlap_margins": [0, 0]}, r"overlap_margins=\[0, 0\] does not fit this model"),
    ],
)
def test_other_patches(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=f"^mm_processor_kwargs: {said}"):
        check_patch_options(options, PROCESSOR)


@pytest.mark.parametrize(
    "options",
    [
        {"patch_size": 14, "merge_size": 2, "videos_kwargs": {"patch_size": 16}},
        {"min_pixels": 1, "size": {"patch_size": 7}, "max_soft_tokens": 70, "downsample_mode": "4x"},
    ],
)
def test_what_fits(options: dict[str, Any]) -> None:
    check_patch_options({**options, "size": {"shortest_edge": 9}}, PROCESSOR)


def test_what_the_processor_says_itself() -> None:
    llava = SimpleNamespace(patch_size=14, image_processor=SimpleNamespace())
    check_patch_options({"patch_size": 14}, llava)
    with pytest.raises(SettingError, match="which was trained with 14"):
        check_patch_options({"patch_size": 16}, llava)
    ernie = SimpleNamespace(spatial_conv_size=2, temporal_conv_size=2, image_processor=SimpleNamespace())
    check_patch_options({"spatial_conv_size": 2}, ernie)
    for name in ("spatial_conv_size", "temporal_conv_size"):
        with pytest.raises(SettingError, match=f"{name}=4 does not fit this model, which was trained with 2"):
            check_patch_options({name: 4}, ernie)


def test_how_many_tokens_an_image_has() -> None:
    """If the number differed from the tower's output, the features would not fit the prompt."""
    idefics = SimpleNamespace(image_seq_len=169, image_processor=SimpleNamespace())
    step = SimpleNamespace(image_processor=SimpleNamespace(num_image_feature_size=169, image_size=728))
    check_patch_options({"image_seq_len": 169}, idefics)
    check_patch_options({"num_image_feature_size": 169, "image_size": 728}, step)
    for options, processor in (
        ({"image_seq_len": 64}, idefics),
        ({"image_seq_length": 64}, SimpleNamespace(image_seq_length=256)),
        ({"num_image_feature_size": 64}, step),
        ({"image_size": 364}, step),
    ):
        with pytest.raises(SettingError, match="does not fit this model, which was trained with"):
            check_patch_options(options, processor)


def test_tiles_of_one_size() -> None:
    def item(*shape: int) -> dict[str, Any]:
        mask = torch.ones(3, 8, 8)
        return {"pixel_values": SimpleNamespace(data=torch.zeros(shape)), "mask": SimpleNamespace(data=mask)}

    check_tiles(item(3, 8, 8), 8, ["size"])
    check_tiles(item(5, 3, 8, 8), [8, 8], ["size"])
    check_tiles(item(9, 64), 8, ["size"])  # features
    for wrong in (item(3, 6, 8), item(2, 3, 8, 6)):
        with pytest.raises(SettingError, match=r"with crop_size, size, a tile has \d x \d pixels, but .* takes 8 x 8"):
            check_tiles(wrong, 8, ["size", "crop_size"])
