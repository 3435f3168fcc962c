"""What is compared and asked: setups, downsampling, plans."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.asking import echoes
from helpers.files.evals import tiny_processor, write_vqav2
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune.evals.run import downsample
from tokenprune.evals.run.plan import PART, Plan
from tokenprune.evals.run.setups import BASELINES, Unpruned, make_setups
from tokenprune.evals.tasks._base.question import Question
from tokenprune.zoom.prompts import encode_chat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_vqav2(tmp_path)
    return tmp_path


@pytest.fixture
def questions(folder: Path) -> list[Question]:
    return echoes(folder)


def test_strategies_as_objects() -> None:
    fopru = tokenprune.FoPru(keep_ratio=0.9, mode="row")
    one, other = make_setups([fopru], [0.5, 0.25], ["compact"], [])
    assert (str(one.key), str(other.key)) == (
        "FoPru row, keep ratio 0.5, position IDs compact",
        "FoPru row, keep ratio 0.25, position IDs compact",
    )
    assert one.settings() == {**asdict(fopru), "keep_ratio": 0.5}


def test_baselines() -> None:
    def labels(strategies: list[str], baselines: Any) -> list[str]:
        return [c.label for c in make_setups(strategies, [0.5], ["original"], baselines)]

    assert labels(["grid"], BASELINES) == ["unpruned", "Grid", "Random", "downsample"]
    assert labels(["random", "grid"], BASELINES) == ["unpruned", "Random", "Grid", "downsample"]
    assert labels(["grid"], []) == ["Grid"]
    with pytest.raises(tokenprune.SettingError, match=r"position IDs 'orginal'\. Did you mean 'original'"):
        make_setups(["grid"], [0.5], ["orginal"])


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("fopro", "Did you mean 'fopru'"),
        ("downsampel", "Did you mean 'downsample'"),
        ("fopru:mod=row", "Did you mean 'mode'"),
        ("fopru:row", "name:key=value"),
    ],
)
def test_unknown_strategies(strategy: str, message: str) -> None:
    with pytest.raises(tokenprune.SettingError, match=message):
        make_setups([strategy])


def test_every_registered_strategy_can_be_named() -> None:
    labels = [setup.label for setup in make_setups(list(tokenprune.STRATEGIES), [0.5])]
    assert len(labels) == 1 + 2 * len(tokenprune.STRATEGIES)


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


def test_plans_have_no_twins(questions: list[Question]) -> None:
    with pytest.raises(ValueError, match=r"question .*'1'.* is there twice"):
        Plan([questions[0], questions[0]], [Unpruned()])
    with pytest.raises(ValueError, match=r"setup FoPru -2, keep ratio 0\.5, .* is there twice"):
        Plan(questions, make_setups(["fopru:layer=-2", "fopru:layer=-2"], [0.5]))


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_processes_share_all_questions(questions: list[Question], n_processes: int) -> None:
    many = [replace(questions[0], id=str(i)) for i in range(5 * PART + 1)]
    plan = Plan(many, [Unpruned()])
    shares = [
        [asked for part in plan.parts(frozenset(), index, n_processes) for asked in part.missing]
        for index in range(n_processes)
    ]
    assert sorted(asked.id for share in shares for asked in share) == sorted(question.id for question in many)
    assert [len(share) for share in shares] == [plan.n_asked(index, n_processes) for index in range(n_processes)]
    assert min(map(len, shares)) > PART
