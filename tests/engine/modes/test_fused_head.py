"""Labels, and heads that a trainer fuses with the loss."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
from engine.modes.test_training import IGNORED, Staged, assert_same_gradients, given, labels_of, masked_loss
from helpers.contract.answers import STRATEGY
from helpers.contract.oracle import dropped_columns
from helpers.families import FAMILIES
from helpers.tiny import IMAGE, prompt, tiny_llava
from torch import Tensor

import tokenprune
from tokenprune import FastV, FoPru, Random
from tokenprune.engine.labels import compared
from tokenprune.sequence.packing import pack


def fused(model: Any) -> Any:
    """Return the model with a forward like that of TRL's `add_fused_lm_head`, without its kernel."""
    original = model.forward

    @wraps(type(model).forward)
    def forward(self: Any, *, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return original(**kwargs)
        labels, shifted = kwargs.pop("labels", None), kwargs.pop("shift_labels", None)
        hidden = self.base_model(**kwargs, use_cache=False).last_hidden_state
        labels, hidden = (labels[:, 1:], hidden[:, :-1]) if shifted is None else (shifted, hidden)
        mask = labels != IGNORED
        logs = self.get_output_embeddings()(hidden).log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        return SimpleNamespace(log_probs=logs * mask, label_mask=mask)

    model.forward = MethodType(forward, model)
    return model


def loss_of(answer: Any) -> Tensor:
    return -answer.log_probs.sum() / answer.label_mask.sum()


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
@pytest.mark.parametrize("fused_first", [True, False], ids=["fused first", "patched first"])
@pytest.mark.parametrize("labels_in", [labels_of, lambda inputs: inputs["input_ids"]], ids=["text", "all"])
def test_loss_and_gradients(
    per_row: list[int], padding: str, fused_first: bool, labels_in: Callable[[Any], Tensor]
) -> None:
    """TRL's collator leaves placeholders among the labels; dropped ones do not count."""
    model, masked = tiny_llava().train(), tiny_llava().train()
    inputs = prompt(per_row, padding=padding)
    labels = labels_in(inputs).masked_fill(inputs["attention_mask"] == 0, IGNORED)
    before = labels.clone()
    if fused_first:
        fused(model)
    with tokenprune.patch(model, STRATEGY) as handle:
        if not fused_first:
            fused(model)
        answer = model(**given(inputs), labels=labels, fused_lm_head=True)
        loss_of(answer).backward()
    assert answer.log_probs.shape == labels[:, 1:].shape  # as without pruning
    assert torch.equal(labels, before)
    expected = masked_loss(masked, inputs, dropped_columns(inputs["input_ids"], [handle.report]), labels)
    expected.backward()
    assert float((loss_of(answer) - expected).detach().abs()) < 1e-5
    assert_same_gradients(model, masked)


@pytest.mark.parametrize("strategy", [STRATEGY, Staged(keep_ratio=0.25), replace(STRATEGY, keep_ratio=1.0)], ids=repr)
def test_the_loss_is_the_models_own(strategy: tokenprune.Strategy) -> None:
    """Also with stages inside the language model, and if nothing is dropped."""
    model, inputs = fused(tiny_llava()), prompt([1, 2])
    labels = labels_of(inputs)
    with torch.no_grad(), tokenprune.patch(model, strategy):
        own = model(**given(inputs), labels=labels).loss
        assert float(loss_of(model(**given(inputs), labels=labels, fused_lm_head=True))) == pytest.approx(float(own))


@pytest.mark.parametrize("strategy", [STRATEGY, FastV(keep_ratio=0.7, layer=1)], ids=["", "reads the question"])
def test_log_probabilities_of_answers_are_those_of_their_generation(strategy: tokenprune.Strategy) -> None:
    """Reinforcement learning uses their ratio."""
    model, inputs = fused(tiny_llava(attention="eager")), prompt([1, 2])
    n_asked = inputs["input_ids"].shape[1]
    with torch.no_grad(), tokenprune.patch(model, strategy):
        said = model.generate(
            **inputs, do_sample=False, max_new_tokens=3, return_dict_in_generate=True, output_logits=True
        )
        ids = said.sequences
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, ids.shape[1] - n_asked), value=1)
        labels = ids.masked_fill(torch.arange(ids.shape[1]) < n_asked, IGNORED)
        answer = model(
            input_ids=ids, attention_mask=mask, pixel_values=inputs["pixel_values"], labels=labels, fused_lm_head=True
        )
    logs = torch.stack(said.logits, 1).log_softmax(-1).gather(-1, ids[:, n_asked:, None])[..., 0]
    assert float((answer.log_probs[:, n_asked - 1 :] - logs).abs().max()) < 1e-4


def test_labels_that_are_shifted_already() -> None:
    model, inputs = fused(tiny_llava()), prompt([1, 2], padding="right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
    shifted = torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
    with torch.no_grad(), tokenprune.patch(model, STRATEGY):
        answer = model(**given(inputs), labels=labels, fused_lm_head=True)
        alike = model(**given(inputs), shift_labels=shifted, fused_lm_head=True)
    assert torch.equal(alike.label_mask[:, :-1], answer.label_mask)
    assert float((alike.log_probs[:, :-1] - answer.log_probs).abs().max()) < 1e-6


def test_a_call_without_images_and_the_next_one_without_labels() -> None:
    model, inputs = fused(tiny_llava()), prompt([1, 2])
    text = {"input_ids": inputs["input_ids"][:, -3:]}
    assert not bool((text["input_ids"] == IMAGE).any())
    with torch.no_grad(), tokenprune.patch(model, STRATEGY) as handle:
        model(**given(inputs), labels=labels_of(inputs), fused_lm_head=True)
        n_left = model(**given(inputs)).logits.shape[1]
        assert n_left < inputs["input_ids"].shape[1]
        of_text = model(**text, labels=text["input_ids"], fused_lm_head=True)
        handle.remove()
        expected = model(**text, labels=text["input_ids"], fused_lm_head=True)
    assert torch.equal(of_text.log_probs, expected.log_probs)


def test_which_columns_are_compared() -> None:
    """The second row is shorter, with a hole before it."""
    packing = pack(torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1]]).bool(), (3, 2))
    assert compared(packing).int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize("name", ["qwen2.5-vl", "internvl", "paligemma", "llava-onevision", "smolvlm", "mistral3"])
def test_other_families(name: str) -> None:
    """Several images in a row, tiles, marks between visual tokens, and attention in both directions."""
    family = FAMILIES[name]
    model, inputs = fused(family.build()), family.prompt([1, 2], [6, 5])
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.5)):
        own = model(**inputs, labels=labels).loss
        assert float(loss_of(model(**inputs, labels=labels, fused_lm_head=True))) == pytest.approx(float(own))


# Labels at other places than text, or in other forms than collators usually write.


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


def test_labels_that_are_shifted_already_without_a_fused_head(llava: Any) -> None:
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
