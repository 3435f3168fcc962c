"""Pruned fine-tuning: gradients and the loss are those of the model in which the dropped tokens are masked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from answers import STRATEGY, n_logits
from oracle import dropped_columns
from tiny import IMAGE, prompt, tiny_llava
from torch import Tensor

import tokenprune

IGNORED = -100


def labels_of(inputs: dict[str, Any]) -> Tensor:
    """As collators write them: every text token is a label, placeholders and padding are none."""
    ids = inputs["input_ids"]
    return ids.masked_fill((ids == IMAGE) | (inputs["attention_mask"] == 0), IGNORED)


def masked_loss(model: Any, inputs: dict[str, Any], dropped: Tensor, labels: Tensor) -> Tensor:
    """The mean over the kept columns of every row but its first: each is compared with the kept column before it, in
    the unpatched model with `dropped` masked out. With gradients, which the oracle of the other tests has not."""
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    length = ids.shape[1]
    seen = torch.ones(length, length).bool().tril() & (real & ~dropped)[:, None, None] | torch.eye(length).bool()
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    logits = model(
        input_ids=ids, pixel_values=inputs["pixel_values"], attention_mask=mask, position_ids=positions
    ).logits
    predicted, wanted = [], []
    for row in range(len(ids)):
        left = (real[row] & ~dropped[row]).nonzero()[:, 0]
        predicted.append(logits[row, left[:-1]])
        wanted.append(labels[row, left[1:]])
    return torch.nn.functional.cross_entropy(torch.cat(predicted), torch.cat(wanted), ignore_index=IGNORED)


def given(inputs: dict[str, Any]) -> dict[str, Any]:
    return {**inputs, "position_ids": (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)}


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_loss_and_gradients(per_row: list[int], padding: str, checkpointing: bool) -> None:
    model, masked = tiny_llava().train(), tiny_llava().train()
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable()
    inputs = prompt(per_row, padding=padding)
    labels = labels_of(inputs)
    with tokenprune.patch(model, STRATEGY) as handle:
        loss = model(**given(inputs), labels=labels).loss
        loss.backward()
    expected = masked_loss(masked, inputs, dropped_columns(inputs["input_ids"], [handle.report]), labels)
    expected.backward()
    assert float((loss - expected).detach().abs()) < 1e-5
    n_gradients = 0
    for (name, parameter), twin in zip(model.named_parameters(), masked.parameters(), strict=True):
        assert (parameter.grad is None) == (twin.grad is None), name
        if parameter.grad is not None and twin.grad is not None:
            assert float((parameter.grad - twin.grad).abs().max()) < 1e-4, name
            n_gradients += bool(parameter.grad.abs().max() > 0)
    assert n_gradients > 60  # tower, projector, decoder and head


def test_labels_of_everything_and_a_given_number_of_items(llava: Any) -> None:
    """Labels of placeholders count where they are kept; the Trainer divides by its own number of labels."""
    inputs = prompt([1])
    labels = inputs["input_ids"]
    with torch.no_grad(), tokenprune.patch(llava, STRATEGY) as handle:
        mean = llava(**given(inputs), labels=labels).loss
        total = llava(**given(inputs), labels=labels, num_items_in_batch=7).loss
    with torch.no_grad():
        expected = masked_loss(llava, inputs, dropped_columns(labels, [handle.report]), labels)
    assert float((mean - expected).abs()) < 1e-5
    assert float((total * 7 - mean * 14).abs()) < 1e-4


def test_the_loss_of_text_and_of_keeping_all_is_bitwise_the_unpatched_one(llava: Any) -> None:
    for inputs, strategy in ((prompt([0, 0]), STRATEGY), (prompt([1, 2]), tokenprune.FoPru(keep_ratio=1.0))):
        labels = labels_of(inputs)
        with torch.no_grad():
            plain = llava(**inputs, labels=labels).loss
            with tokenprune.patch(llava, strategy):
                assert torch.equal(llava(**inputs, labels=labels).loss, plain)
            assert torch.equal(llava(**inputs, labels=labels).loss, plain)


def test_a_loss_function_of_the_users_own(llava: Any) -> None:
    """Set before the patch, it is called with labels as long as the logits; set behind, it replaces ours."""
    shapes: list[tuple[int, int]] = []

    def own(logits: Tensor, labels: Tensor, vocab_size: int, **kwargs: Any) -> Tensor:
        shapes.append((logits.shape[1], labels.shape[1]))
        return logits.sum()

    inputs = prompt([1])
    llava.loss_function = own
    with torch.no_grad(), tokenprune.patch(llava, STRATEGY):
        llava(**inputs, labels=labels_of(inputs))
    assert llava.loss_function is own
    with torch.no_grad(), tokenprune.patch(llava, STRATEGY):
        llava.loss_function = own
        llava(**inputs, labels=labels_of(inputs))
    assert llava.loss_function is own
    del llava._loss_function
    assert shapes == [(15, 15), (15, 42)]


def test_a_step_of_training_changes_what_is_kept() -> None:
    """The strategy looks at the weights as they are now."""
    model = tiny_llava().train()
    inputs = prompt([1])
    with tokenprune.patch(model, STRATEGY) as handle:
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        losses = []
        for _ in range(3):
            loss = model(**inputs, labels=labels_of(inputs)).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append((float(loss.detach()), handle.report.images[0].kept.tolist()))
        assert n_logits(model, inputs) == 15
    assert losses[-1][0] < losses[0][0]
    assert losses[-1][1] != losses[0][1]
