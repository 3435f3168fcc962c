"""Several questions about one image get the same answers at once as one by one."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families.base import RECENT
from helpers.files.evals import saved, tiny_processor
from helpers.files.own import write_own
from helpers.training import COLLATOR, fresh_llava

from tokenprune import UnsupportedError
from tokenprune.evals.adapt.adapt import adapt
from tokenprune.evals.adapt.examples import Example, by_image
from tokenprune.evals.adapt.generation import RowGenerator
from tokenprune.evals.adapt.logits import output_layer
from tokenprune.evals.adapt.lora import with_lora
from tokenprune.evals.adapt.rows import Collator, Row
from tokenprune.evals.adapt.teaching import Distributions, Teacher, teacher_distributions
from tokenprune.evals.run.plan import Plan
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.run.runner import Runner
from tokenprune.evals.run.setups import Unpruned
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.question import Question

#: For each image, questions of one to three words, one of them asked twice.
ASKED = (("12 13", "14", "12 13"), ("12 15 16",), ("13", "15 12"))
UNPRUNED = Unpruned()
END = 52
ends = pytest.mark.skipif(not RECENT, reason="with an older transformers' random weights, no answer ends")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = ({"image": f"{n}.png", "question": text} for n, asked in enumerate(ASKED) for text in asked)
    return write_own(tmp_path_factory.mktemp("own"), *lines)


@pytest.fixture(scope="module")
def questions(data: Path) -> list[Question]:
    return load_questions(data, labels=False)


def rows_of(questions: list[Question]) -> list[Row]:
    return [Row(tuple(Example(one, None) for one in group)) for group in by_image(questions, 8)]


def generator_of(model: Any, questions: list[Question]) -> RowGenerator:
    head = output_layer(model, COLLATOR([Row((Example(questions[0], "05"),))]))
    assert head is not None
    return RowGenerator(model, COLLATOR, head)


def texts(generator: RowGenerator, questions: list[Question]) -> list[str]:
    found = {
        example.question.key: answer.text
        for row in rows_of(questions)
        for example, answer in zip(row.examples, generator.generate([row])[0], strict=True)
    }
    together = [answer.text for of_row in generator.generate(rows_of(questions)) for answer in of_row]
    assert list(found.values()) == together
    return [found[question.key] for question in questions]


def alone(model: Any, questions: list[Question]) -> list[str]:
    runner = Runner(model, tiny_processor(), [UNPRUNED], 512)
    found = {
        (answer.task, answer.id): answer.text
        for part in Plan(questions, [UNPRUNED]).parts(set())
        for answers in runner.ask(part)
        for answer in answers
    }
    return [found[question.key] for question in questions]


@pytest.fixture
def model() -> Any:
    """A model with an end token that only some answers reach."""
    model = fresh_llava()
    model.generation_config.suppress_tokens = None
    model.generation_config.eos_token_id = [END, 99]
    return model


@ends
def test_answers_are_those_of_the_questions_alone(model: Any, questions: list[Question]) -> None:
    generator = generator_of(model, questions)
    assert generator.why_not_at_once(rows_of(questions)[0]) is None
    found = texts(generator, questions)
    assert found == alone(model, questions)
    assert len({len(text.split()) for text in found}) > 2
    short = [replace(one, max_new_tokens=7 + number) for number, one in enumerate(questions)]
    assert texts(generator, short) == [" ".join(text.split()[: 7 + n]) for n, text in enumerate(found)]


def test_what_it_says_is_what_a_teacher_says(model: Any, questions: list[Question]) -> None:
    """The teacher reads all answers at once, without a cache."""
    generator = generator_of(model, questions)
    rows = rows_of([replace(one, max_new_tokens=3) for one in questions])
    answers = generator.generate(rows)
    learnt = [
        Row(tuple(Example(one.question, given.text) for one, given in zip(row.examples, of_row, strict=True)))
        for row, of_row in zip(rows, answers, strict=True)
    ]
    expected = teacher_distributions(with_lora(model, "decoder", 4), COLLATOR(learnt), None)
    found = [answer.distributions for of_row in answers for answer in of_row]
    assert None not in found
    joined = Distributions.concat([one for one in found if one is not None])
    assert len(joined.tokens) == 3 * len(questions)
    assert torch.equal(joined.tokens[:, 0], expected.tokens[:, 0])
    torch.testing.assert_close(joined.logs[:, 0], expected.logs[:, 0], atol=1e-5, rtol=0)


@ends
def test_an_answer_that_is_cut_off_is_not_what_is_learnt(
    model: Any, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers to learn must be complete."""
    tokenizer = COLLATOR.processor.tokenizer

    def with_end(collator: Collator, text: str) -> list[int]:
        return [*tokenizer(text.removesuffix("50"), add_special_tokens=False)["input_ids"], END]

    monkeypatch.setattr(Collator, "answer", with_end)
    generator = generator_of(model, questions)
    cut, ended = ([replace(one, max_new_tokens=n) for one in questions] for n in (3, 40))
    assert {answer.distributions for of_row in generator.generate(rows_of(cut)) for answer in of_row} == {None}
    assert any(one.distributions is not None for of_row in generator.generate(rows_of(ended)) for one in of_row)


def test_why_questions_are_asked_alone(model: Any, questions: list[Question], monkeypatch: pytest.MonkeyPatch) -> None:
    generator, row = generator_of(model, questions), rows_of(questions)[0]
    model.generation_config.repetition_penalty = 1.0
    assert generator.why_not_at_once(row) is None
    model.generation_config.repetition_penalty = 1.05
    assert generator.why_not_at_once(row) == "its generation config has repetition_penalty=1.05"
    model.generation_config.repetition_penalty = None
    model.generation_config.min_new_tokens = 1  # 1 does nothing to a factor only
    assert generator.why_not_at_once(row) == "its generation config has min_new_tokens=1"
    model.generation_config.min_new_tokens = None
    monkeypatch.setattr("tokenprune.evals.adapt.generation._visible", everything)
    assert "with a cache, the model then answers something else" in str(generator.why_not_at_once(row))


def everything(questions: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """Return a mask with which questions see each other."""
    return torch.ones(len(parts), 1, len(questions), parts.shape[1], dtype=torch.bool)


def test_no_number_is_no_answer(model: Any, questions: list[Question]) -> None:
    generator = generator_of(model, questions)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(UnsupportedError, match="computes NaN instead of logits"):
        generator.generate(rows_of(questions))


def test_a_training_asks_at_once_and_no_teacher(
    model: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it resumes, when the distributions of the stored answers are not known."""
    taught: list[int] = []
    distributions = Teacher.distributions

    def counted(teacher: Teacher, batch: Any, rows: Any) -> Any:
        taught.append(sum(row not in teacher._known for row in rows))
        return distributions(teacher, batch, rows)

    monkeypatch.setattr(Teacher, "distributions", counted)
    monkeypatch.setattr(Runner, "ask", None)
    options: dict[str, Any] = {"data": data, "labels": False, "steps": 2, "batch": 2, "keep_ratio": 0.3}
    folder, output = saved(model, tmp_path / "model"), tmp_path / "adapted"
    found = adapt(folder, output=output, **options)
    assert taught == [0, 0]
    answers = RunFolder(output / "answers").answers()
    assert len(answers) == 6
    taught.clear()
    shutil.rmtree(output / "checkpoints")
    again = adapt(folder, output=output, **options)
    assert sum(taught) == 3
    assert RunFolder(output / "answers").answers() == answers
    assert [loss for _, loss in again.losses] == pytest.approx([loss for _, loss in found.losses], rel=1e-3)


def test_a_model_that_cannot_is_asked_one_by_one(
    model: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers are the same."""
    options: dict[str, Any] = {"data": data, "labels": False, "steps": 2, "batch": 2, "keep_ratio": 0.3}
    found: list[dict[str, str]] = []
    for penalty, said in ((None, False), (1.0001, True)):
        model.generation_config.repetition_penalty = penalty
        adapt(saved(model, tmp_path / f"model {penalty}"), output=tmp_path / f"{penalty}", **options)
        written = " ".join(capsys.readouterr().out.split())
        assert ("Asking one question at a time, although several are about the same image" in written) == said
        found.append(
            {key.id: one.text for key, one in RunFolder(tmp_path / f"{penalty}" / "answers").answers().items()}
        )
    assert found[0] == found[1]
    assert len(found[0]) == 6
