"""The baseline that shrinks the image."""

from typing import Any

import pytest
from helpers.files.evals import tiny_processor
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune.evals.run import downsample
from tokenprune.evals.run.backend import InProcessBackend, without_downsampling
from tokenprune.evals.tasks.base.question import Question
from tokenprune.prompts import encode_chat


@pytest.mark.parametrize(
    ("n_kept", "grid"), [(576, (24, 24)), (288, (17, 17)), (144, (12, 12)), (58, (8, 8)), (1, (1, 1))]
)
def test_nearest_grid(n_kept: int, grid: tuple[int, int]) -> None:
    assert downsample.nearest_grid(24, 24, n_kept) == grid


def test_nearest_grid_keeps_the_aspect_ratio() -> None:
    assert downsample.nearest_grid(12, 24, 72) == (6, 12)


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_center_crop": True}, {"do_center_crop": True, "size": {"shortest_edge": 24}}],
    ids=["resize", "crop", "shortest edge"],
)
@pytest.mark.parametrize("tower", ["clip", "dinov2"])
def test_downsampled_prompt_and_features_agree(questions: list[Question], settings: dict[str, Any], tower: str) -> None:
    model, processor = tiny_llava(tower), tiny_processor(**settings)
    options = downsample.processor_options(processor, 0.25)
    inputs = encode_chat(processor, [questions[0].open_images()], ["00"], **options)
    assert inputs["pixel_values"].shape[-2:] == (12, 12)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 9
    with downsample.any_resolution(model):
        model(**inputs)
    assert not model.get_encoder(modality="image")._forward_pre_hooks


def test_downsampling_needs_a_fixed_size() -> None:
    processor = tiny_processor(size={"shortest_edge": 24})
    with pytest.raises(tokenprune.UnsupportedError, match="no fixed image size"):
        downsample.full_grid(processor)


def test_a_model_that_takes_videos_is_not_downsampled_by_default() -> None:
    """For example Video-LLaVA, whose videos the baseline cannot resize."""
    processor: Any = tiny_processor()
    asked = InProcessBackend(tiny_llava(), processor, batch_tokens=1, on_error="stop")
    assert list(asked.baselines(print)) == ["unpruned", "random", "downsample"]
    processor.video_processor = processor.image_processor
    assert list(asked.baselines(print)) == ["unpruned", "random"]


def test_what_is_left_out_need_not_be() -> None:
    """If the user asked for it, the error says to leave it out. Otherwise, a line says why it is left out."""
    said: list[str] = []
    processor: Any = type("Other", (), {"image_processor": None})()
    with pytest.raises(tokenprune.UnsupportedError, match="leave out --image-size and the baseline") as raised:
        downsample.full_grid(processor)
    without_downsampling(str(raised.value), said.append)
    assert said[0].endswith("so no image size gives it a certain number of them")
