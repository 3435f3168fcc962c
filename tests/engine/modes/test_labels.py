"""Labels at other places than text, or in other forms than collators usually write."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine.modes.test_training import IGNORED, given, labels_of, masked_loss
from helpers.contract.answers import STRATEGY
from helpers.contract.oracle import dropped_columns
from helpers.tiny import prompt, tiny_llava

import tokenprune
from tokenprune import FoPru


def test_labels_of_everything_and_a_given_number_of_items(llava: Any) -> None:
    """Labels of kept placeholders count; the Trainer divides by its own number of labels."""
    inputs = prompt([1])
    labels = inputs["input_ids"]
    with torch.no_grad(), tokenprune.patch(llava, STRATEGY) as handle:
        mean = llava(**given(inputs), labels=labels).loss
        total = llava(**given(inputs), labels=labels, num_items_in_batch=7).loss
    with torch.no_grad():
        expected = masked_loss(llava, inputs, dropped_columns(labels, [handle.report]), labels)
    assert float((mean - expected).abs()) < 1e-5
    assert float((total * 7 - mean * 14).abs()) < 1e-4


def test_labels_that_are_shifted_already(llava: Any) -> None:
    """Context parallelism and some collators pass them like this."""
    inputs = prompt([1, 2])
    labels = labels_of(inputs)
    shifted = torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)):
        expected = llava(**inputs, labels=labels).loss
        assert float(llava(**inputs, labels=labels, shift_labels=shifted).loss) == pytest.approx(float(expected))


def test_labels_of_a_part(llava: Any) -> None:
    """A caller may itself cut out the last logits and labels, or flatten what it has chosen."""
    inputs = prompt([1, 2])
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)):
        logits, labels = llava(**inputs).logits[:, -3:].contiguous(), inputs["input_ids"][:, -3:]
        loss = llava.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
        flat = {"labels": None, "shift_labels": labels[:, 1:].flatten(), "vocab_size": logits.shape[-1]}
        of_chosen = llava.loss_function(logits[:, :-1].flatten(0, 1), **flat)
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert float(loss) == pytest.approx(float(expected))
    assert float(of_chosen) == pytest.approx(float(expected))


def test_logits_of_another_model(llava: Any) -> None:
    """For example those of an unpruned teacher, whose loss is computed after a pruned call."""
    inputs = prompt([1, 2])
    labels = labels_of(inputs)
    with torch.no_grad():
        teacher = tiny_llava(seed=3)(**inputs, labels=labels)
        with tokenprune.patch(llava, STRATEGY):
            llava(**inputs)
            loss = llava.loss_function(logits=teacher.logits, labels=labels, vocab_size=teacher.logits.shape[-1])
    assert torch.equal(loss, teacher.loss)
