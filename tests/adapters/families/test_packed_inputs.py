"""Other inputs of models with packed images: audio, seconds, compressed videos, and one placeholder for both kinds."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.modes import Run, generated, run_cell
from helpers.contract.oracle import assert_close, dropped_columns
from helpers.families import FAMILIES
from helpers.families.packed.omni import AUDIO, Qwen2_5Omni

import tokenprune
from tokenprune import FoPru, Grid, PruningError, Random
from tokenprune.sequence.position_ids import compact_ids

OMNI = ["qwen2.5-omni", "qwen3-omni"]


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


@pytest.mark.parametrize("name", OMNI)
def test_audio_stays(name: str) -> None:
    """A row with an image and one with two, with audio in each: masking is exact, and no audio token is dropped."""
    family, model = FAMILIES[name], model_of(name)
    assert isinstance(family, Qwen2_5Omni)
    inputs = family.with_audio(family.prompt([1, 2]))
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.3)) as handle:
        run = Run(inputs, *generated(model, inputs, do_sample=False))
    assert {image.modality for image in handle.report.images} == {"image"}
    dropped = dropped_columns(run.whole(family)["input_ids"], [handle.report])
    assert not dropped[run.whole(family)["input_ids"] == AUDIO].any()
    assert_close(run.logits, run.expected(family, model, dropped))
    silent = {**inputs, "input_features": torch.zeros_like(inputs["input_features"])}
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.3)):
        muted, heard = (model(**given).logits[:, -1] for given in (silent, inputs))
    assert (heard - muted).abs().max() > 1e-3  # so the answer depends on the audio


def test_position_ids_may_be_fractions() -> None:
    """Those of Qwen3-Omni count the seconds of a video: half a second is 12.5 IDs."""
    family, model = FAMILIES["qwen3-omni"], model_of("qwen3-omni")
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.5)) as handle:
        run = run_cell(family, model, "greedy", "video")
    ids = torch.cat([image.position_ids for image in handle.report.images], -1)
    assert (ids % 1 == 0.5).any()
    dropped = dropped_columns(run.whole(family)["input_ids"], [handle.report])
    assert_close(run.logits, run.expected(family, model, dropped))


def test_compact_ids_of_fractions() -> None:
    ids = torch.tensor([[0.0, 0.0, 1.0, 1.0, 13.5, 14.5]]).expand(3, 1, -1)
    dropped = torch.tensor([[0, 0, 1, 0, 0, 0]]).bool()
    real = torch.tensor([[0, 1, 1, 1, 1, 1]]).bool()
    assert compact_ids(ids, dropped, real)[:, 0, 1:].tolist() == [[0.0, 0.0, 1.0, 2.0, 3.0]] * 3


def test_a_video_that_the_processor_compressed_is_refused() -> None:
    family, model = FAMILIES["video-llama-3"], model_of("video-llama-3")
    inputs = family.prompt([0], videos_per_row=[1])
    inputs["video_compression_mask"][5] = False
    with (
        torch.no_grad(),
        tokenprune.patch(model, Grid(keep_ratio=0.5)),
        pytest.raises(PruningError, match=r"video_compression_mask.*use_token_compression=False"),
    ):
        model(**inputs)


def test_a_frame_of_a_video_has_the_placeholders_of_an_image() -> None:
    """GLM-4V: in the report, the video is one image whose tiles are the frames."""
    family, model = FAMILIES["glm4v"], model_of("glm4v")
    inputs = family.prompt([0, 0], videos_per_row=[1, 2])
    assert (inputs["mm_token_type_ids"] == 2).any()
    with torch.no_grad(), tokenprune.patch(model, Grid(keep_ratio=0.5)) as handle:
        model(**inputs)
    assert [(image.row, image.modality, image.layout.grid) for image in handle.report.images] == [
        (0, "video", (2, 4, 3)),
        (1, "video", (3, 3, 3)),
        (1, "video", (2, 4, 3)),
    ]


def test_images_beside_videos_of_glm_5_next() -> None:
    """Both use the placeholder of images; a video's placeholders are between its markers."""
    family: Any = FAMILIES["glm5-next"]
    model, inputs = family.build(), family.prompt([1], videos_per_row=[1])
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.4)) as handle:
        logits = model(**inputs).logits
    kinds = inputs["mm_token_type_ids"][0]
    dropped = torch.zeros_like(inputs["input_ids"]).bool()
    for image in handle.report.images:
        columns = (kinds == {"image": 1, "video": 2}[image.modality]).nonzero()[:, 0]
        assert image.n_visual == len(columns)
        dropped[0, columns] = True
        dropped[0, columns[image.kept]] = False
    assert [image.modality for image in handle.report.images] == ["image", "video"]
    assert_close(logits[0], family.oracle(model, inputs, dropped)[0, ~dropped[0]])
