"""The runner, its configurations and its command line, on a tiny random model."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evals_files import tiny_processor, write_refcoco, write_vqav2
from search_files import LAYERS, deep_llava
from tiny import tiny_llava

import tokenprune
from tokenprune.evals import aggregate, downsample
from tokenprune.evals import batches as batching
from tokenprune.evals.answers import Answer
from tokenprune.evals.batches import Shown, batches
from tokenprune.evals.configurations import BASELINES, Configuration, Pruned, configurations
from tokenprune.evals.identity import versions
from tokenprune.evals.loading import evenly, load_model, load_samples
from tokenprune.evals.paired import paired
from tokenprune.evals.plan import PART, Plan
from tokenprune.evals.prompts import encode, prompt
from tokenprune.evals.runner import Runner, SampleError
from tokenprune.evals.sample import Sample
from tokenprune.evals.search_plot import tokens_per_layer
from tokenprune.evals.styles import STYLES
from tokenprune.strategies.vflowopt import VFlowOpt


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


def ask(
    model: Any,
    samples: list[Sample],
    compared: list[Configuration],
    *,
    batch_tokens: int = 4096,
    on_error: Any = "stop",
    done: Any = frozenset(),
) -> list[Answer]:
    runner = Runner(model, tiny_processor(), compared, batch_tokens, on_error)
    return [
        answer for part in Plan(samples, compared).parts(done) for answers in runner.ask(part) for answer in answers
    ]


def identity() -> dict[str, Any]:
    return {"model": {"device": "cpu", "dtype": "float32"}, "versions": versions()}


def test_rows(samples: list[Sample]) -> None:
    compared = configurations(["random:seed=3", "fopru:mode=row", "downsample"], [0.5])
    answers = {answer.asked: answer for answer in ask(tiny_llava(), samples, compared)}
    rows = aggregate.rows(samples, compared, answers, scenes="a", model="b", identity=identity())
    assert [(row.strategy, row.position_ids) for row in rows] == [
        ("unpruned", "original"),
        ("Random 3", "original"),
        ("Random 3", "compact"),
        ("FoPru row", "original"),
        ("FoPru row", "compact"),
        ("downsample", "original"),
    ]
    assert [(row.n_kept, row.n_mean, row.n_visual) for row in rows] == [
        (36, 36, 36),
        *[(18, 18, 36)] * 4,
        (16, 16, 36),
    ]
    for row in rows:
        assert (row.n, row.unparsable, row.failed, row.accuracy) == (3, 1, 0, pytest.approx(2 / 3))
        assert row.metrics == {"accuracy": pytest.approx(2 / 3)}
        assert row.scores == {"val": [1, None], "test": [1]}
        assert row.pictures == {"val": [0, 0], "test": [0]}
        assert row.questions == rows[0].questions
        # Keys and values of 2 layers, 2 heads, 8 wide, 4 bytes; the first prompt has 7 words beside the picture.
        assert row.kv_cache_bytes == 2 * 2 * 2 * 8 * 4 * (row.n_kept + 7)
        assert row.seconds is not None
        assert row.seconds > 0
        assert {"torch", "transformers", "tokenprune"} <= set(row.versions)
        json.dumps(row.settings)
    assert rows[1].settings == {"keep_ratio": 0.5, "keep": None, "budget_per": "image", "seed": 3}
    assert len({answer.text for answer in answers.values()}) > 3  # the configurations do differ


def test_what_was_kept_is_in_the_answer(samples: list[Sample]) -> None:
    (configuration,) = configurations(["grid"], [0.25], ["original"], [])
    model = tiny_llava()
    (answer,) = ask(model, samples[:1], [configuration])
    with configuration.patched(model) as handle:
        model(**encode(tiny_processor(), [samples[0].pictures()], [samples[0].question]))
    (kept,) = answer.kept
    assert kept.grids == ((1, 6, 6),)
    assert np.flatnonzero(kept.mask(36)).tolist() == handle.report.images[0].kept.tolist()


def test_tokens_of_a_strategy_that_drops_on_the_way(samples: list[Sample]) -> None:
    (configuration,) = configurations(["vflowopt"], [0.25], ["original"], [])
    assert isinstance(configuration, Pruned)
    assert isinstance(configuration.strategy, VFlowOpt)
    (answer,) = ask(deep_llava(), samples[:1], [configuration])
    per_layer = tokens_per_layer(configuration.strategy, LAYERS, 36)
    assert (answer.n_kept, answer.n_mean) == (per_layer[0], pytest.approx(sum(per_layer) / LAYERS))
    assert answer.n_kept > 9 >= answer.n_mean


def unlike_time(answers: list[Answer]) -> list[Answer]:
    return sorted((replace(answer, seconds=0.0) for answer in answers), key=lambda answer: answer.asked)


def test_batches_do_not_change_answers(samples: list[Sample]) -> None:
    model, compared = tiny_llava(), configurations(["fopru", "downsample"], [0.25])
    assert unlike_time(ask(model, samples, compared)) == unlike_time(ask(model, samples, compared, batch_tokens=1))


def test_batches_are_counted_in_tokens(samples: list[Sample]) -> None:
    """Prompts have 43, 46 and 49 tokens; the longest come first, and padding counts."""
    shown = [Shown.of(sample, tiny_processor()) for sample in samples]
    assert [one.n_tokens for one in shown] == [43, 46, 49]

    def ids(batch_tokens: int) -> list[str]:
        return ["".join(one.sample.id for one in batch) for batch in batches(shown, batch_tokens)]

    assert ids(3 * 49) == ["321"]
    assert ids(3 * 49 - 1) == ["32", "1"]
    assert ids(1) == ["3", "2", "1"]


def test_an_encoding_serves_all_configurations(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    encodings = []
    monkeypatch.setattr(
        "tokenprune.evals.runner.encoded", lambda *args: encodings.append(args[3].label) or batching.encoded(*args)
    )
    ask(tiny_llava(), samples[1:], configurations(["grid", "downsample", "fopru"], [0.25, 0.5]), done=frozenset())
    whole, *others = encodings
    assert whole == "unpruned"
    # Two sizes of downsampling, and the first question alone for the cache: unpruned, 2 x 2 x 2 pruned, 2 downsampled.
    assert len(others) == 2 + 11


def test_what_is_answered_is_not_asked_again(samples: list[Sample]) -> None:
    model, compared = tiny_llava(), configurations(["grid"], [0.25])
    everything = ask(model, samples, compared)
    done = {answer.asked for answer in everything[::2]}
    rest = ask(model, samples, compared, done=done)
    assert {answer.asked for answer in rest} == {answer.asked for answer in everything[1::2]}
    assert unlike_time(rest) == unlike_time(everything[1::2])
    assert ask(model, samples, compared, done={answer.asked for answer in everything}) == []


def test_the_model_is_left_as_it_was(samples: list[Sample]) -> None:
    model = tiny_llava()

    def state() -> dict[str, Any]:
        return {
            name: (set(module.__dict__), list(module._forward_pre_hooks), list(module._forward_hooks))
            for name, module in model.named_modules()
        }

    ask(model, samples, [Configuration()])  # transformers adds hooks of its own at the first call
    before = state()
    ask(model, samples, configurations(["fopru", "downsample"], [0.25]))
    assert state() == before


def broken(folder: Path) -> Sample:
    """Half a JPEG."""
    whole = (folder / "images" / "COCO_val2014_000000000042.jpg").read_bytes()
    path = folder / "broken.jpg"
    path.write_bytes(whole[: len(whole) // 2])
    return Echo(task="vqa", id="7", images=(path,), question="00")


def test_a_broken_picture_stops_the_run(samples: list[Sample], folder: Path) -> None:
    with pytest.raises(SampleError, match=r"unpruned, .*: stopped at 7 \(.*broken\.jpg\): .*broken\.jpg: truncated"):
        ask(tiny_llava(), [samples[0], broken(folder)], [Configuration()])


class Crash(tokenprune.ScoreStrategy):
    def score(self, tokens: tokenprune.VisualTokens) -> torch.Tensor:
        raise RuntimeError("out of luck")


def crash() -> Pruned:
    return Pruned(label="Crash", strategy=Crash(keep_ratio=0.5), keep_ratio=0.5)


def test_a_crash_stops_the_run(samples: list[Sample]) -> None:
    model = tiny_llava()
    with pytest.raises(SampleError, match=r"Crash, keep ratio 0\.5, .*stopped at 3 .*: out of luck"):
        ask(model, samples, [Configuration(), crash()])
    assert not model._forward_pre_hooks


def test_recorded_errors_are_no_wrong_answers(samples: list[Sample], folder: Path) -> None:
    compared, asked = [Configuration(), crash()], [*samples, broken(folder)]
    answers = {answer.asked: answer for answer in ask(tiny_llava(), asked, compared, on_error="record")}
    unpruned, crashed = aggregate.rows(asked, compared, answers, scenes="a", model="b", identity=identity())
    assert (unpruned.n, unpruned.failed, unpruned.accuracy) == (3, 1, pytest.approx(2 / 3))
    assert unpruned.scores == {"val": [1, None], "test": [1], "": ["failed"]}
    assert (crashed.n, crashed.failed) == (0, 4)
    errors = [answer.error for answer in answers.values() if answer.error is not None]
    assert sum(error.startswith("ValueError: ") and "broken.jpg: truncated" in error for error in errors) == 2
    assert errors.count("RuntimeError: out of luck") == 3
    with pytest.raises(ValueError, match="no vqa question could be asked under both"):
        paired(crashed, unpruned)


def test_one_bad_question_does_not_take_its_batch_along(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Echo, "score", lambda self, answer: 1 / (2 - int(self.id)))
    answers = {answer.id: answer for answer in ask(tiny_llava(), samples, [Configuration()], on_error="record")}
    assert [answers[id].score for id in "13"] == [1, -1]
    assert answers["2"].error == "ZeroDivisionError: division by zero"
    with pytest.raises(SampleError, match=r"stopped at 2 \(.*division by zero"):
        ask(tiny_llava(), samples, [Configuration()])


def test_a_batch_that_is_too_large(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llava()
    generate = model.generate

    def short_of_memory(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("no memory left")
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", short_of_memory)
    for on_error in ("stop", "record"):
        with pytest.raises(SampleError, match=r"at 3, 2, 1: no memory left\. .*lower --batch-tokens, which is 4096"):
            ask(model, samples, [Configuration()], on_error=on_error)
    assert len(ask(model, samples, [Configuration()], batch_tokens=60)) == 3


def test_plans_have_no_twins(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match=r"question .*'1'.* is there twice"):
        Plan([samples[0], samples[0]], [Configuration()])
    with pytest.raises(ValueError, match=r"configuration FoPru -2, keep ratio 0\.5, .* is there twice"):
        Plan(samples, configurations(["fopru:layer=-2", "fopru:layer=-2"], [0.5]))


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_processes_share_all_questions(samples: list[Sample], n_processes: int) -> None:
    many = [replace(samples[0], id=str(i)) for i in range(5 * PART + 1)]
    plan = Plan(many, [Configuration()])
    shares = [
        [asked for part in plan.parts(frozenset(), index, n_processes) for asked in part.missing]
        for index in range(n_processes)
    ]
    assert sorted(asked.id for share in shares for asked in share) == sorted(sample.id for sample in many)
    assert [len(share) for share in shares] == [plan.n_asked(index, n_processes) for index in range(n_processes)]
    assert min(map(len, shares)) > PART


def test_strategies_as_objects() -> None:
    fopru = tokenprune.FoPru(keep_ratio=0.9, mode="row")
    one, other = configurations([fopru], [0.5, 0.25], ["compact"], [])
    assert (str(one.key), str(other.key)) == (
        "FoPru row, keep ratio 0.5, position IDs compact",
        "FoPru row, keep ratio 0.25, position IDs compact",
    )
    assert one.settings() == {**asdict(fopru), "keep_ratio": 0.5}


def test_baselines() -> None:
    def labels(strategies: list[str], baselines: Any) -> list[str]:
        return [c.label for c in configurations(strategies, [0.5], ["original"], baselines)]

    assert labels(["grid"], BASELINES) == ["unpruned", "Grid", "Random", "downsample"]
    assert labels(["random", "grid"], BASELINES) == ["unpruned", "Random", "Grid", "downsample"]
    assert labels(["grid"], []) == ["Grid"]
    with pytest.raises(tokenprune.SettingError, match=r"position IDs 'orginal'\. Did you mean 'original'"):
        configurations(["grid"], [0.5], ["orginal"])


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
