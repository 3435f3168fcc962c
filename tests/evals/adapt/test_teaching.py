"""Distillation: a pruned model learns what it would answer unpruned and without its adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files.evals import saved
from helpers.files.own import write_own
from helpers.training import COLLATOR, adapted_llava, alone, fresh_llava
from torch.nn.functional import kl_div

import tokenprune
from tokenprune import FoPru, UnsupportedError
from tokenprune.evals.adapt.adapt import adapt
from tokenprune.evals.adapt.examples import Example
from tokenprune.evals.adapt.lora import with_lora
from tokenprune.evals.adapt.loss import AnswerLoss, answer_loss
from tokenprune.evals.adapt.rows import Row
from tokenprune.evals.adapt.teaching import KEPT, Distributions, Teacher, teacher_distributions
from tokenprune.evals.run.questions import load_questions

N = 6
ANSWERS = ("07 08", "05", "09 05 06")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_own(tmp_path_factory.mktemp("own"), *({"image": f"{n}.png", "question": "12 13"} for n in range(N)))


@pytest.fixture
def model() -> Any:
    return adapted_llava(std=0.3)


@pytest.fixture(scope="module")
def rows(data: Path) -> list[Row]:
    """Three questions, each in its own row, with answers of one to three tokens."""
    return alone(map(Example, load_questions(data, labels=False)[:3], ANSWERS))


@pytest.fixture(scope="module")
def batch(rows: list[Row]) -> dict[str, Any]:
    return COLLATOR(rows)


def places(batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the row of each token to learn, and the column of the token before it."""
    rows, columns = (batch["labels"] != -100).nonzero().T
    return rows, columns - 1


@torch.no_grad()
def log_probabilities(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    return model(**{name: value for name, value in batch.items() if name != "labels"}).logits.log_softmax(-1)


def test_the_teacher_has_no_adapter(model: Any, batch: dict[str, Any]) -> None:
    model.train()
    found = teacher_distributions(model, batch)
    assert model.training
    model.eval()
    with model.disable_adapter():
        plain = log_probabilities(model, batch)[places(batch)]
    assert torch.equal(found.logs, plain.gather(1, found.tokens.long()))
    assert found.logs.shape == plain.shape  # a small vocabulary is stored completely
    assert len(found.logs) == 6
    assert (plain - log_probabilities(model, batch)[places(batch)]).abs().max() > 1e-2


def test_improbable_tokens_are_added_up() -> None:
    n = KEPT + 100
    generator = torch.Generator().manual_seed(0)
    teacher, student = (3 * torch.randn(5, n, generator=generator) for _ in range(2))
    student.requires_grad_()
    found = Distributions.of(teacher)
    probabilities = teacher.softmax(1).sort(1, descending=True).values
    expected = torch.cat([probabilities[:, :KEPT], probabilities[:, KEPT:].sum(1, keepdim=True)], 1)
    torch.testing.assert_close(found.logs.exp(), expected)
    divergence = found.divergence(student)
    whole = kl_div(student.detach().log_softmax(1), teacher.log_softmax(1), reduction="sum", log_target=True)
    assert 0.9 * float(whole) < float(divergence.detach()) < float(whole)
    divergence.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad != 0).all()
    assert float(found.divergence(teacher)) == pytest.approx(0, abs=1e-4)


def test_the_teacher_is_asked_once(model: Any, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives the same in the same row or in others, and with other padding."""
    said = Teacher(model, None, {})
    expected = {row: teacher_distributions(model, COLLATOR([row])).logs for row in rows}
    said.distributions(COLLATOR(rows[:2]), rows[:2])
    said.distributions(COLLATOR(rows[1:]), rows[1:])  # only one of the two is new
    monkeypatch.setattr(type(model), "forward", None)
    for chosen in ([rows[2], rows[0]], [rows[1]], rows):
        found = said.distributions(COLLATOR(chosen), chosen)
        torch.testing.assert_close(found.logs, torch.cat([expected[row] for row in chosen]))


def test_the_loss_is_the_divergence_of_the_pruned_model(model: Any, batch: dict[str, Any]) -> None:
    """It is taken at the places of the labels, whose columns pruning changes."""
    model.eval()
    teacher = teacher_distributions(model, batch)
    for keep_ratio in (1.0, 0.2):
        with answer_loss(model, None, teacher), tokenprune.patch(model, FoPru(keep_ratio=keep_ratio)) as handle:
            loss = model(**batch).loss
            n_dropped = handle.report.images[0].n_visual - handle.report.images[0].n_kept
            pruned = log_probabilities(model, batch)
        rows, columns = places(batch)
        own = pruned[rows, columns - n_dropped]
        assert (n_dropped > 0) == (keep_ratio < 1)
        expected = kl_div(own.gather(1, teacher.tokens.long()), teacher.logs, reduction="sum", log_target=True)
        assert float(loss.detach()) == pytest.approx(float(expected) / 6, rel=1e-4)
        assert loss.requires_grad


def test_a_new_adapter_has_nothing_to_learn_unpruned(batch: dict[str, Any]) -> None:
    model = with_lora(fresh_llava(), "decoder", 4)
    targets = teacher_distributions(model, batch)
    with answer_loss(model, None, targets):
        assert float(model(**batch).loss.detach()) == pytest.approx(0, abs=1e-6)
    with answer_loss(model, None, targets), tokenprune.patch(model, FoPru(keep_ratio=0.2)):
        assert float(model(**batch).loss.detach()) > 1e-4
    assert float(model(**batch).loss.detach()) > 1  # the loss of the labels again


def test_several_batches_of_a_step_count_by_their_tokens(model: Any, batch: dict[str, Any]) -> None:
    loss = AnswerLoss(model.get_base_model().loss_function, lambda logits: logits, teacher_distributions(model, batch))
    with torch.no_grad():
        logits = model(**batch).logits
    assert float(loss(logits, batch["labels"], 96, num_items_in_batch=60)) == pytest.approx(
        float(loss(logits, batch["labels"], 96)) / 10
    )


def test_a_model_with_a_loss_of_its_own_is_refused(model: Any, batch: dict[str, Any]) -> None:
    base = model.get_base_model()
    with (
        pytest.raises(UnsupportedError, match=r"Llava.* without loss_function.* leave out --no-labels"),
        answer_loss(model, None, teacher_distributions(model, batch)),
    ):
        pass
    assert not isinstance(base.loss_function, AnswerLoss)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_brings_the_pruned_model_closer(dtype: str, data: Path, tmp_path: Path) -> None:
    """Also in bfloat16, where transformers' Trainer converts the outputs of the trained model to float32."""
    found = adapt(
        saved(fresh_llava(), tmp_path / "model"),
        data=data,
        output=tmp_path / "adapted",
        **{"labels": False, "steps": 16, "batch": 4, "whole": 0.0, "up_to": 0.2, "keep_ratio": 0.2},
        learning_rate=1e-2,
        dtype=dtype,
    )
    losses = [loss for _, loss in found.losses]
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
