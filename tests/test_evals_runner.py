"""The runner, its configurations and its command line, on a tiny random model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from evals_files import tiny_processor, write_refcoco, write_vqav2
from tiny import tiny_llava

import tokenprune
from tokenprune.evals import downsample
from tokenprune.evals.configurations import Configuration, Pruned, configurations
from tokenprune.evals.loading import evenly, load_model, load_samples
from tokenprune.evals.prompts import encode, prompt
from tokenprune.evals.runner import SampleError, run
from tokenprune.evals.sample import Sample
from tokenprune.evals.styles import STYLES


@dataclass(frozen=True, kw_only=True)
class Echo(Sample):
    """Right whatever the model says; unparsable where not `readable`."""

    readable: bool = True

    def score(self, answer: str) -> float | None:
        return 1.0 if self.readable else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_refcoco(tmp_path)
    write_vqav2(tmp_path)
    return tmp_path


@pytest.fixture
def samples(folder: Path) -> list[Sample]:
    image = folder / "images" / "COCO_val2014_000000000042.jpg"
    return [
        Echo(
            task="vqa",
            id=str(i),
            images=(image,),
            question="00 01 02 " * i,
            split="test" if i == 3 else "val",
            readable=i != 2,
        )
        for i in (1, 2, 3)
    ]


def test_prompts_are_golden(folder: Path) -> None:
    processor = tiny_processor()
    assert {
        sample.id: prompt(processor, sample.question) for sample in load_samples(folder, style=STYLES["bundled"])
    } == {
        "rec-20": "user : <image> Where is the orange box? assistant :",
        "rec-21": "user : <image> Where is right thing? assistant :",
        "rec-30": "user : <image> Where is corner? assistant :",
        "vqa-42000": "user : <image> Is it box 0? assistant :",
        "vqa-42001": "user : <image> Is it box 1? assistant :",
        "vqa-42002": "user : <image> Is it box 2? assistant :",
    }


def test_rows(samples: list[Sample]) -> None:
    strategies = ["random:seed=3", "fopru:mode=row", "downsample"]
    results = list(run(tiny_llava(), tiny_processor(), samples, configurations(strategies, [0.5]), batch_size=2))
    rows = [row for row, _ in results]
    assert [(row.strategy, row.position_ids) for row in rows] == [
        ("unpruned", "original"),
        ("Random 3", "original"),
        ("Random 3", "compact"),
        ("FoPru row", "original"),
        ("FoPru row", "compact"),
        ("downsample", "original"),
    ]
    assert [(row.n_kept, row.n_visual) for row in rows] == [(36, 36), *[(18, 36)] * 4, (16, 36)]
    for row in rows:
        assert (row.n, row.unparsable, row.accuracy) == (3, 1, pytest.approx(2 / 3))
        assert row.scores == {"val": [1, None], "test": [1]}
        assert row.questions == rows[0].questions
        # Keys and values of 2 layers, 2 heads, 8 wide, 4 bytes; the first prompt has 7 words beside the picture.
        assert row.kv_cache_bytes == 2 * 2 * 2 * 8 * 4 * (row.n_kept + 7)
        assert {"torch", "transformers", "tokenprune"} <= set(row.versions)
        json.dumps(row.settings)
    assert rows[1].settings == {"keep_ratio": 0.5, "keep": None, "budget_per": "image", "seed": 3}
    assert len({tuple(answer.text for answer in answers) for _, answers in results}) > 3  # the configurations do differ


def test_batches_do_not_change_answers(samples: list[Sample]) -> None:
    model, processor, compared = tiny_llava(), tiny_processor(), configurations(["fopru", "downsample"], [0.25])
    for (_, batched), (_, alone) in zip(
        run(model, processor, samples, compared, batch_size=3),
        run(model, processor, samples, compared, batch_size=1),
        strict=True,
    ):
        assert batched == alone


def test_the_model_is_left_as_it_was(samples: list[Sample]) -> None:
    model, processor = tiny_llava(), tiny_processor()

    def state() -> dict[str, Any]:
        return {
            name: (set(module.__dict__), list(module._forward_pre_hooks), list(module._forward_hooks))
            for name, module in model.named_modules()
        }

    list(run(model, processor, samples, [Configuration()]))  # transformers adds hooks of its own at the first call
    before = state()
    list(run(model, processor, samples, configurations(["fopru", "downsample"], [0.25])))
    assert state() == before


def test_a_broken_picture_stops_the_run(samples: list[Sample], folder: Path) -> None:
    broken = folder / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    samples = [samples[0], Echo(task="vqa", id="7", images=(broken,), question="00")]
    with pytest.raises(SampleError, match=r"unpruned, .*: stopped at 7 \(.*broken\.jpg\)"):
        list(run(tiny_llava(), tiny_processor(), samples, [Configuration()], batch_size=1))


def test_a_crash_stops_the_run(samples: list[Sample]) -> None:
    class Crash(tokenprune.ScoreStrategy):
        def score(self, tokens: tokenprune.VisualTokens) -> torch.Tensor:
            raise RuntimeError("out of luck")

    crash = Pruned(label="Crash", strategy=Crash(keep_ratio=0.5), keep_ratio=0.5)
    model = tiny_llava()
    with pytest.raises(SampleError, match=r"Crash, keep ratio 0\.5, .*stopped at 1 .*: out of luck"):
        list(run(model, tiny_processor(), samples, [Configuration(), crash]))
    assert not model._forward_pre_hooks


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
        configurations([strategy])


def test_every_registered_strategy_can_be_named() -> None:
    labels = [configuration.label for configuration in configurations(list(tokenprune.STRATEGIES), [0.5])]
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
def test_downsampled_prompt_and_features_agree(samples: list[Sample], settings: dict[str, Any], tower: str) -> None:
    model, processor = tiny_llava(tower), tiny_processor(**settings)
    options = downsample.processor_options(processor, 0.25)
    inputs = encode(processor, [samples[0].pictures()], ["00"], **options)
    assert inputs["pixel_values"].shape[-2:] == (12, 12)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 9
    with downsample.any_resolution(model):
        model(**inputs)
    assert not model.get_encoder(modality="image")._forward_pre_hooks


def test_downsampling_needs_a_fixed_size() -> None:
    processor = tiny_processor(size={"shortest_edge": 24})
    with pytest.raises(ValueError, match="no fixed picture size"):
        downsample.full_grid(processor)


def test_split_is_of_both_tasks(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    write_vqav2(tmp_path)
    instances = tmp_path / "instances.json"
    content = json.loads(instances.read_text())
    picture = {"id": 42, "file_name": "COCO_val2014_000000000042.jpg", "width": 60, "height": 40, "split": "val"}
    instances.write_text(json.dumps(content | {"images": [*content["images"], picture]}))
    assert {(sample.task, sample.split) for sample in load_samples(tmp_path)} == {
        ("rec", "val"),
        ("rec", "testA"),
        ("vqa", "val"),
    }
    assert {(sample.task, sample.split) for sample in load_samples(tmp_path, split="val")} == {
        ("rec", "val"),
        ("vqa", "val"),
    }
    with pytest.raises(ValueError, match=r"questions\.json.*no split 'testA'; it has val"):
        load_samples(tmp_path, split="testA")


def test_limit_is_spread_evenly() -> None:
    numbers: Any = list(range(10))
    assert evenly(numbers, 5) == [0, 2, 4, 6, 8]
    assert evenly(numbers, 3) == [0, 3, 6]
    assert evenly(numbers, 20) == evenly(numbers, None) == numbers


def test_folder_without_questions(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no questions; needs"):
        load_samples(tmp_path)


def test_no_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.evals.loading.MODEL", tmp_path)
    with pytest.raises(FileNotFoundError, match="say which one with --model"):
        load_model(str(tmp_path))
