"""Complete trainings of an adapter, on a tiny model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import command
from helpers.files.evals import saved
from helpers.files.own import write_own
from helpers.files.search import deep_llava
from helpers.training import COLLATOR, alone, fresh_llava
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

import tokenprune
from tokenprune import DataError, FoPru, SettingError, UnsupportedError
from tokenprune.evals.adapt.adapt import Adapted, adapt
from tokenprune.evals.adapt.estimate import duration, estimate
from tokenprune.evals.adapt.examples import Example, by_image, check_images, labelled, right_answer, sample_groups
from tokenprune.evals.adapt.lora import n_trained, target_names, with_lora
from tokenprune.evals.adapt.objective import Objective, Ratios
from tokenprune.evals.adapt.rows import Row
from tokenprune.evals.adapt.training import PrunedTrainer, last_checkpoint
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.short_answers import exact
from tokenprune.evals.tasks.base.video import VideoAnswer
from tokenprune.sequence.packing import IGNORED_LABEL

N = 12
FEW: dict[str, Any] = {"steps": 12, "batch": 4, "learning_rate": 2e-2, "save_every": 4, "keep_ratio": 0.2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with questions of two lengths, and answers of one and two tokens."""
    asked = [("12 13" if number % 3 else "14", "07 08" if number % 2 else "05") for number in range(N)]
    lines = ({"image": f"{n}.png", "question": text, "answer": answer} for n, (text, answer) in enumerate(asked))
    return write_own(tmp_path_factory.mktemp("own"), *lines)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(deep_llava(), tmp_path_factory.mktemp("model"))


def adapted(model: str, data: Path, output: Path, **options: Any) -> Adapted:
    return adapt(model, data=data, output=output, **{**FEW, **options})


@pytest.fixture(scope="module")
def undisturbed(model: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    return adapted(model, data, tmp_path_factory.mktemp("adapted"))


def weights(found: Adapted) -> dict[str, torch.Tensor]:
    return load_file(found.adapter / "adapter_model.safetensors")


def test_the_loss_falls(undisturbed: Adapted) -> None:
    losses = [loss for _, loss in undisturbed.losses]
    assert len(losses) == 12
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's
def test_the_adapter_loads_with_plain_peft(undisturbed: Adapted, model: str, data: Path) -> None:
    """It changes the answers, pruned or not."""
    plain: Any = AutoModelForImageTextToText.from_pretrained(model)
    batch = COLLATOR(alone(labelled(load_questions(data))[:4]))
    labels = batch.pop("labels")
    with torch.no_grad():
        before = float(plain(**batch, labels=labels).loss)
        loaded: Any = PeftModel.from_pretrained(plain, str(undisturbed.adapter))
        assert float(loaded(**batch, labels=labels).loss) < 0.7 * before
        with tokenprune.patch(loaded, "fopru", keep_ratio=0.2) as handle:
            assert float(loaded(**batch, labels=labels).loss) < 0.7 * before
            assert handle.report.n_kept < handle.report.n_visual
    config = (undisturbed.adapter / "adapter_config.json").read_text()
    assert "tokenprune" not in config
    assert json.loads(config)["base_model_name_or_path"] == model


@pytest.mark.parametrize("step", [2, 7])
def test_a_killed_training_resumes(
    step: int, undisturbed: Adapted, model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It resumes from its last complete checkpoint, if there is one, with the rows that were left of an epoch, and ends
    with the same weights."""

    class Killed(BaseException):
        pass

    training_step = PrunedTrainer.training_step

    def dies(trainer: PrunedTrainer, *args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == step:
            raise Killed
        return training_step(trainer, *args, **kwargs)

    monkeypatch.setattr(PrunedTrainer, "training_step", dies)
    with pytest.raises(Killed):
        adapted(model, data, tmp_path)
    monkeypatch.undo()
    (tmp_path / "checkpoints" / "checkpoint-8").mkdir(parents=True)  # an incomplete checkpoint
    (tmp_path / "checkpoints" / "checkpoint-4 (copy)").mkdir()
    found = last_checkpoint(tmp_path / "checkpoints")
    assert found is None if step == 2 else found is not None and found.name == "checkpoint-4"
    resumed = adapted(model, data, tmp_path)
    expected = weights(undisturbed)
    assert weights(resumed).keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(resumed).items())
    assert resumed.losses == undisturbed.losses
    with pytest.raises(SettingError, match=r"adapt\.json: holds another training, with rank=16 and not rank=4"):
        adapted(model, data, tmp_path, rank=4)


@pytest.mark.parametrize(("steps", "batch", "accumulate"), [(4, 3, 1), (7, 1, 3)])
def test_a_training_that_is_done_stays_as_it_is(
    steps: int, batch: int, accumulate: int, model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer would take one more step in the second case."""
    options = {"steps": steps, "batch": batch, "accumulate": accumulate}
    found = adapted(model, data, tmp_path, **options)
    before = weights(found)
    monkeypatch.setattr(PrunedTrainer, "training_step", lambda *_: pytest.fail("one more step"))
    again = adapted(model, data, tmp_path, **options)
    assert again.losses == found.losses
    assert all(torch.equal(weight, before[name]) for name, weight in weights(again).items())


def test_labels_are_those_of_the_answers_alone(data: Path) -> None:
    examples = labelled(load_questions(data))[:3]
    batch = COLLATOR(alone(examples))
    for row, example in enumerate(examples):
        labels, real = batch["labels"][row], batch["attention_mask"][row].bool()
        answer = [int(word) + 2 for word in (example.answer or "").split()]
        assert labels[labels != IGNORED_LABEL].tolist() == answer
        assert batch["input_ids"][row][labels != IGNORED_LABEL].tolist() == answer
        shown = real.nonzero()[:, 0]
        assert (shown.diff() == 1).all()  # nothing is padded between prompt and answer
        assert labels[shown[-1]] == answer[-1]
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape


def test_it_learns_from_the_split_for_training(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"question": "12", "answer": "05"}
    write_own(tmp_path, *(line | {"image": f"{split}.png", "split": split} for split in ("train", "val")))
    for split, expected in ((None, "train"), ("val", "val")):
        output = tmp_path / expected
        adapted(model, tmp_path, output, labels=False, steps=1, batch=1, split=split)
        assert {key.id for key in RunFolder(output / "answers").answers()} == {f"own-{1 if split is None else 2}"}
        assert ("Learning from split train." in capsys.readouterr().out) == (split is None)


def test_what_is_trained() -> None:
    model = fresh_llava()
    names = {part: target_names(model, part) for part in ("decoder", "projector", "both")}
    assert all(".layers." in name and "vision" not in name for name in names["decoder"])
    assert names["projector"]
    assert all("projector" in name for name in names["projector"])
    assert set(names["both"]) == {*names["decoder"], *names["projector"]}
    wrapped = with_lora(model, "projector", 2)
    trained = [name for name, weight in wrapped.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora" in name and "projector" in name for name in trained)
    assert len(trained) == 2 * len(names["projector"])


def test_a_training_sees_no_more_questions_than_it_needs(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The unpruned model, whose own answers are learnt without labels, is asked no other questions either."""
    adapted(model, data, tmp_path, labels=False, steps=2, batch=2, accumulate=2, rank=2)
    answers = RunFolder(tmp_path / "answers").answers().values()
    assert {answer.strategy for answer in answers} == {"unpruned"}
    kept = sum(answer.text != "" for answer in answers)
    assert f"Learning the unpruned model's own answers to {kept} questions." in capsys.readouterr().out
    assert len(answers) == 8 < N
    questions = load_questions(data)
    groups = by_image(questions, 8)
    assert groups == [(question,) for question in questions]
    found = sample_groups(groups, 8, seed=0)
    assert found == sample_groups(groups, 8, seed=0) != sample_groups(groups, 8, seed=1)
    assert found == [one for one in groups if one in found]
    assert sample_groups(groups, N + 1, seed=0) == groups


def test_the_estimate_is_of_the_largest_examples(data: Path) -> None:
    """Size in pixels counts before the length of text, because most tokens are visual."""
    questions = load_questions(data)
    small, large = Row((Example(questions[0], "a long answer"),)), Row((Example(questions[1], "05"),))
    assert large.size[0] == small.size[0] == 60 * 40
    assert small.size > large.size
    twice = Row((Example(replace(questions[1], images=questions[1].images * 2), "05"),))
    assert twice.size > small.size
    assert Row(large.examples * 2).size > large.size


def test_the_estimate_changes_nothing(data: Path) -> None:
    model = with_lora(fresh_llava(), "decoder", 4)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    batch = COLLATOR(alone(labelled(load_questions(data))[:4]))
    state = torch.get_rng_state()
    objective = Objective(FoPru(), Ratios(0.1, 0.5, 0.25), labels=False, head=None)
    found = estimate(model, batch, 2, objective)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) and weight.grad is None for name, weight in model.named_parameters())
    assert found.n_trained == n_trained(model) < found.n_weights
    assert found.peak > 12 * found.n_trained
    assert min(found.whole, found.pruned, found.teaching) > 0
    found = replace(found, whole=60.0, pruned=20.0, teaching=15.0)
    assert "about 60 minutes for 100 steps, or less" in found.sentence(100, share=0.25, n_taught=40)
    assert [duration(seconds) for seconds in (80.0, 600.0, 7200.0)] == ["80 seconds", "10 minutes", "2.0 hours"]


def test_bad_input_is_a_sentence(model: str, data: Path, tmp_path: Path) -> None:
    def said(*options: object, data: Path = data) -> str:
        return command("adapt", "--model", model, "--data", data, "--output", tmp_path / "out", *options)

    assert "no such folder" in said("--no-labels", "--batch-tokens", 512, data=tmp_path / "nowhere")
    assert "write the lower first" in said("--keep-ratio", 0.6)
    assert "a share of 1 unpruned steps is not in" in said("--whole", 1)
    assert "learning_rate=-1 is not a positive number" in said("--learning-rate", -1)
    assert "learning_rate=nan is not a positive number" in said("--learning-rate", "nan")
    few = said("--keep-ratio", 0.1, "--up-to", 0.5, "--strategy", "vflowopt:first=0.11")
    assert "keep fewer tokens than an average of 0.5 needs" in few  # before the first step, not in a later one
    assert "Did you mean 'fopru'" in said("--strategy", "fopruu")
    unlabelled = write_own(tmp_path / "unlabelled", {"image": "1.png", "question": "12"})
    assert "line 1: no answer. Add one, or write --no-labels" in said(data=unlabelled)


def test_videos_are_refused() -> None:
    video = VideoAnswer(task="t", id="t-1", images=(Path("a.mp4"),), text="?", answers=("x",), worth=exact, n_frames=2)
    with pytest.raises(UnsupportedError, match="t-1 is about a video, but adapters learn from images"):
        check_images([video])


def test_answers_that_cannot_be_written(data: Path) -> None:
    question = load_questions(data)[0]
    assert right_answer(question) == "05"

    class Other(type(question).__mro__[1]):
        def score(self, answer: str) -> float | None:
            return None

    other = Other(task="other", id="other-1", images=question.images, text="?")
    with pytest.raises(DataError, match="other-1: tokenprune cannot write a right answer for task other"):
        right_answer(other)
