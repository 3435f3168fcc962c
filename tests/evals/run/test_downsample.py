"""Smaller images: the baseline, and runs at another size."""

from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import saved, tiny_processor, write_refcoco
from helpers.tiny import SIDE, tiny_llava

import tokenprune
from tokenprune.evals import evaluate
from tokenprune.evals.run import downsample
from tokenprune.evals.run.backend import InProcessBackend, without_downsampling
from tokenprune.evals.run.downsample import at_size
from tokenprune.evals.storage.run_folder import RunFolder
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


# Every setup of a run at another resolution than the processor's own, and on images that are padded, not cropped.


def run(folder: Path, output: Path, size: tuple[int, int] | None, tower: str = "dinov2") -> list[Any]:
    return evaluate(
        (tiny_llava(tower), tiny_processor()),
        output=output,
        data=folder,
        strategies=["fopru"],
        keep_ratios=[0.5],
        position_ids=["original"],
        baselines=["unpruned", "downsample"],
        image_size=size,
    )


@pytest.mark.parametrize("tower", ["clip", "dinov2"])
def test_a_run_at_another_size(folder: Path, tmp_path: Path, tower: str) -> None:
    unpruned, pruned, downsampled = run(folder, tmp_path / "run", (16, 32), tower)
    assert unpruned.dataset == f"{folder.name} 16x32"
    assert (unpruned.n_visual, unpruned.n_kept) == (32, 32)
    assert (pruned.n_visual, pruned.n_kept) == (32, 16)
    assert (downsampled.n_visual, downsampled.n_kept) == (32, 18)  # 3 x 6 of 4 x 8


def test_runs_of_two_sizes_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "run", None)
    assert run(folder, tmp_path / "run", None)[0].dataset == folder.name
    with pytest.raises(tokenprune.TokenPruneError, match="image_size"):
        run(folder, tmp_path / "run", (16, 32))


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_center_crop": True}, {"do_center_crop": True, "size": {"shortest_edge": SIDE}}],
    ids=["resize", "crop", "shortest edge"],
)
def test_the_processor_is_copied(questions: list[Question], settings: dict[str, Any]) -> None:
    own = tiny_processor(**settings)
    other = at_size(own, 16, 32)
    shapes = [
        encode_chat(processor, [questions[0].open_images()], ["00"])["pixel_values"].shape[-2:]
        for processor in (other, own)
    ]
    assert shapes == [(16, 32), (SIDE, SIDE)]


@pytest.mark.parametrize(("size", "fitting"), [((17, 31), "16 32"), ((0, 32), "4 32"), ((16, -32), "16 4")])
def test_only_whole_patches(size: tuple[int, int], fitting: str) -> None:
    with pytest.raises(tokenprune.SettingError, match=f"--image-size {fitting}"):
        at_size(tiny_processor(), *size)


def test_cropping_is_told_and_can_be_padding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both images are 60 x 40; of the three boxes that are asked for, one is at the edge that is cut off."""
    write_refcoco(tmp_path)
    model, crops = tiny_llava(), dict[str, Any](do_center_crop=True, size={"shortest_edge": SIDE})
    named: dict[str, Any] = {"data": tmp_path, "strategies": ["fopru"], "keep_ratios": [0.5]}
    said = []
    asked: list[dict[str, Any]] = [{}, {"pad": True}, {"pad": True, "image_size": (16, 16)}]
    for number, options in enumerate(asked):
        processor = tiny_processor(**crops)
        rows = evaluate((model, processor), output=tmp_path / f"{number}", **named, **options)
        said.append(" ".join(capsys.readouterr().out.split()))
        assert rows[0].dataset == tmp_path.name + ["", " padded", " 16x16 padded"][number]
        identity = RunFolder(tmp_path / f"{number}").record["identity"]
        assert ("pad" in identity) == ("pad" in options)
    told = "the model does not see all of 2 of 2 images (100%) and of 1 of 3 boxes (33%). To pad them to squares"
    assert said[0].count(told) == 1
    assert "crops images" not in said[1] + said[2]
    with pytest.raises(tokenprune.TokenPruneError, match="pad"):
        evaluate((model, tiny_processor(**crops)), output=tmp_path / "0", **named, pad=True)
    folder = saved(tiny_llava(), tmp_path / "model")
    tiny_processor(**crops).save_pretrained(folder)
    with pytest.raises(tokenprune.SettingError, match=r"an engine prepares images itself: leave out pad \(--pad\)"):
        evaluate(folder, output=tmp_path / "3", data=tmp_path, engine="vllm", pad=True)
