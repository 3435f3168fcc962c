"""Logits of only the learned tokens: the same loss and gradients with less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import prompt, tiny_llava

import tokenprune
from tokenprune import FoPru
from tokenprune.evals.adapt.logits import output_layer
from tokenprune.evals.adapt.lora import with_lora
from tokenprune.evals.adapt.loss import answer_loss
from tokenprune.evals.adapt.teaching import Distributions, teacher_distributions
from tokenprune.sequence.packing import IGNORED_LABEL


def labelled(inputs: dict[str, Any], n: int = 2) -> dict[str, Any]:
    """Return prompts whose last tokens are the answers."""
    labels = inputs["input_ids"].clone()
    labels[:, :-n] = IGNORED_LABEL
    return {**inputs, "labels": labels}


@pytest.fixture
def model() -> Any:
    """A model with an adapter that changes its output."""
    model = with_lora(tiny_llava(), "decoder", 4)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def step(model: Any, batch: dict[str, Any], head: Any, targets: Distributions | None, keep: int | None) -> Any:
    """Return the loss, gradients and logits of a step."""
    model.zero_grad(set_to_none=True)
    with answer_loss(model, head, targets):
        if keep is None:
            out = model(**batch)
        else:
            with tokenprune.patch(model, FoPru(keep=keep)):
                out = model(**batch)
    out.loss.backward()
    return out.loss.detach(), [one.grad for one in model.parameters() if one.grad is not None], out.logits


@pytest.mark.parametrize("keep", [None, 5])
@pytest.mark.parametrize("labels", [True, False])
def test_loss_and_gradients_stay(model: Any, labels: bool, keep: int | None) -> None:
    batch, head = labelled(prompt([1, 2])), model.get_base_model().lm_head
    assert output_layer(model.get_base_model(), batch) is head
    targets = None if labels else teacher_distributions(model, batch, head)
    if targets is not None:
        assert torch.equal(targets.logs, teacher_distributions(model, batch).logs)
    loss, gradients, hidden = step(model, batch, head, targets, keep)
    expected, others, logits = step(model, batch, None, targets, keep)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients, others)
    assert len(gradients) > 0
    assert hidden.shape == (*logits.shape[:2], head.in_features)  # logits are never computed
    assert "forward" not in vars(head)
    assert model(**batch).logits.shape[2] == head.out_features


def test_models_that_change_logits_have_no_such_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["gemma3n"]  # a soft cap
    assert output_layer(family.build("sdpa"), labelled(family.prompt([1]))) is None
    model = tiny_llava()
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    assert output_layer(model, labelled(prompt([1]))) is None
    monkeypatch.undo()
    model.loss_function = lambda *args, **kwargs: torch.tensor(0.0)  # it may not support selected places
    assert output_layer(model, labelled(prompt([1]))) is None


def test_the_layer_is_itself_again_after_an_error(model: Any) -> None:
    batch = labelled(prompt([1]))
    base = model.get_base_model()
    own, head = base.loss_function, output_layer(base, batch)
    with pytest.raises(ZeroDivisionError), answer_loss(model, head):
        raise ZeroDivisionError
    assert base.loss_function is own
    assert "forward" not in vars(head)
