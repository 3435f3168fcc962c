"""Pruned fine-tuning: gradients and the loss are those of the model in which the dropped tokens are masked."""

import copy
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import pytest
import torch
from helpers.contract.answers import STRATEGY, n_logits
from helpers.contract.oracle import dropped_columns
from helpers.families import FAMILIES
from helpers.tiny import IMAGE, prompt, tiny_llava
from torch import Tensor

import tokenprune
from tokenprune import FoPru, PruningError, Random, Selection
from tokenprune.selection import Merge
from tokenprune.strategy import Stage, StagedStrategy
from tokenprune.tokens import StageTokens, VisualTokens

IGNORED = -100


def labels_of(inputs: dict[str, Any]) -> Tensor:
    """Return labels like those of collators: all text tokens, but no placeholders or padding."""
    ids = inputs["input_ids"]
    return ids.masked_fill((ids == IMAGE) | (inputs["attention_mask"] == 0), IGNORED)


def masked_loss(model: Any, inputs: dict[str, Any], dropped: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of the unpatched model with `dropped` masked: the mean over kept columns, each compared with the
    kept column before it. Unlike the oracle of other tests, it has gradients."""
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


@dataclass(frozen=True)
class Staged(FoPru, StagedStrategy):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Drops more after the first decoder layer."""

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return (Stage(1, keep_ratio=0.1),)


def checkpointing(model: Any) -> Any:
    """Make the model recompute activations in the backward pass, and return it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    return model


def trained(model: Any, strategy: tokenprune.Strategy, inputs: dict[str, Any]) -> tuple[Tensor, tokenprune.Report]:
    """Return the loss of one step, and leave its gradients in the model."""
    with tokenprune.patch(model, strategy) as handle:
        loss = model(**given(inputs), labels=labels_of(inputs)).loss
        loss.backward()
    return loss.detach(), handle.report


def assert_same_gradients(model: Any, twin: Any) -> None:
    n_gradients = 0
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        if parameter.grad is not None and other.grad is not None:
            assert float((parameter.grad - other.grad).abs().max()) < 1e-4, name
            n_gradients += bool(parameter.grad.abs().max() > 0)
    assert n_gradients > 60  # tower, projector, decoder and head


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
@pytest.mark.parametrize("made", [lambda model: model, checkpointing], ids=["", "checkpointing"])
def test_loss_and_gradients(per_row: list[int], padding: str, made: Any) -> None:
    model, masked = made(tiny_llava().train()), tiny_llava().train()
    inputs = prompt(per_row, padding=padding)
    loss, report = trained(model, STRATEGY, inputs)
    expected = masked_loss(masked, inputs, dropped_columns(inputs["input_ids"], [report]), labels_of(inputs))
    expected.backward()
    assert float((loss - expected.detach()).abs()) < 1e-5
    assert_same_gradients(model, masked)


def test_stages_inside_the_language_model() -> None:
    """Labels match what the last layer sees. Checkpointing changes nothing, or is refused."""
    inputs, strategy = prompt([1, 2]), Staged(keep_ratio=0.25)
    model, twin = tiny_llava().train(), checkpointing(tiny_llava().train())
    loss, report = trained(model, strategy, inputs)
    assert report.images[0].stages
    if type(twin.model.language_model.layers[0]).__call__ is not torch.nn.Module.__call__:
        with pytest.raises(PruningError, match="runs decoder layers again in the backward pass"):
            trained(twin, strategy, inputs)
        return
    assert torch.equal(trained(twin, strategy, inputs)[0], loss)
    assert_same_gradients(twin, model)


def test_checkpointing_that_runs_hooks_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in older transformers, which wraps the layer's call itself."""
    model = checkpointing(tiny_llava().train())
    layer: Any = type(model.model.language_model.layers[0])
    monkeypatch.setattr(layer, "__call__", lambda self, *args, **kwargs: super(layer, self).__call__(*args, **kwargs))
    with pytest.raises(PruningError, match="Switch it off, use a newer transformers, or prune before"):
        trained(model, Staged(keep_ratio=0.25), prompt([1]))
    trained(model, STRATEGY, prompt([1]))


def test_the_loss_of_text_and_of_keeping_all_is_bitwise_the_unpatched_one(llava: Any) -> None:
    as_long = prompt([0], texts=[prompt([1])["input_ids"].shape[1]])  # as if every row were padded to one length
    whole = (prompt([1, 2]), tokenprune.FoPru(keep_ratio=1.0))
    for inputs, strategy in ((prompt([0, 0]), STRATEGY), (as_long, STRATEGY), whole):
        labels = labels_of(inputs)
        with torch.no_grad():
            plain = llava(**inputs, labels=labels).loss
            with tokenprune.patch(llava, strategy):
                llava(**prompt([1]))  # labels that come later do not belong to this forward
                assert torch.equal(llava(**inputs, labels=labels).loss, plain)
            assert torch.equal(llava(**inputs, labels=labels).loss, plain)


def test_a_loss_function_of_the_users_own(llava: Any) -> None:
    """If it is set before the patch, it gets labels as long as the logits; if set after it, it replaces ours."""
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
        llava.loss_function = another = partial(own)
        llava(**inputs, labels=labels_of(inputs))
    assert llava.loss_function is another
    del llava._loss_function
    assert shapes == [(15, 15), (15, 42)]


def test_a_step_of_training_changes_what_is_kept() -> None:
    """The strategy reads the current weights."""
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


def test_packed_rows_are_refused(llava: Any) -> None:
    """Without a mask and a cache, transformers separates sequences where position IDs start again."""
    inputs = prompt([2])
    length = inputs.pop("attention_mask").shape[1]
    first = length // 2
    ids = torch.cat([torch.arange(first), torch.arange(length - first)])[None]
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)):
        with pytest.raises(PruningError, match=r"several sequences are packed in one row .* padded batch"):
            llava(**inputs, position_ids=ids, use_cache=False)
        assert torch.isfinite(llava(**inputs, use_cache=False).logits).all()
        for name in ("cu_seq_lens_q", "max_length_k"):
            for called in (llava, llava.model):  # trainers with their own loss call the base model
                with pytest.raises(PruningError, match=f"{name} count the tokens of the unpruned sequence"):
                    called(**inputs, **{name: torch.tensor([0, first, length])})
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=1.0)):  # not refused, because nothing is dropped
        llava(**inputs, position_ids=ids, use_cache=False)


@pytest.mark.parametrize("of", ["model, patched before", "model", "class"])
def test_a_loss_that_does_not_compare_sizes_is_refused(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Liger Kernel's forwards flatten hidden states and labels, and use only as many labels as there are states. The
    Trainer sets them on the model, Liger's own functions on its class."""
    model, inputs = tiny_llava(), prompt([1])
    forward = type(model).forward

    def lce_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    lce_forward.__module__ = "liger_kernel.transformers.model.llava"
    if of == "class":
        monkeypatch.setattr(type(model), "forward", lce_forward)
    if of == "model":
        model.forward = MethodType(lce_forward, model)
    with tokenprune.patch(model, STRATEGY):
        if of == "model, patched before":
            model.forward = MethodType(lce_forward, model)
        assert torch.isfinite(model(**inputs).logits).all()
        with pytest.raises(PruningError, match="labels with use_liger_kernel=True count the tokens of the unpruned"):
            model(**inputs, labels=labels_of(inputs))


def test_ids_that_fall_after_an_image_are_not_another_sequence(llava: Any) -> None:
    """In Qwen2.5-VL of transformers 5.4, an image has a higher ID than the text that follows."""
    inputs = prompt([1])
    length = inputs.pop("attention_mask").shape[1]
    ids = torch.arange(length)[None].masked_fill(inputs["input_ids"] == IMAGE, 2 * length)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        llava(**inputs, position_ids=ids, use_cache=False)
    assert handle.report.n_kept == 9


@pytest.mark.parametrize("name", ["qwen3-vl-moe", "ernie4.5-vl"])
def test_the_loss_of_experts_counts_the_mask(name: str) -> None:
    family = FAMILIES[name]
    model, inputs = family.build(), family.prompt([1], [6])
    said = "output_router_logits with an attention_mask count the tokens of the unpruned sequence"
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.5)):
        with pytest.raises(PruningError, match=said):
            model(**inputs, output_router_logits=True)
        model.config.get_text_config().output_router_logits = True
        model.config.output_router_logits = True
        with pytest.raises(PruningError, match=said):
            model(**inputs, labels=inputs["input_ids"])
        del inputs["attention_mask"]
        assert torch.isfinite(model(**inputs, labels=inputs["input_ids"], output_router_logits=True).loss)


@dataclass(frozen=True)
class Differentiable(StagedStrategy):
    """Has scores and weights with gradients, before the language model and inside it."""

    def select(self, tokens: VisualTokens) -> Selection:
        scores = tokens.features.norm(dim=-1)
        kept = torch.arange(self.budget(tokens.n_visual))
        merged = Merge(kept, kept, scores[kept])
        return Selection(kept, tokens.n_visual, scores, merged)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return (Stage(1, keep_ratio=0.1),)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        scores = tokens.features.norm(dim=-1)
        kept = torch.arange(stage.budget(tokens.n_visual))
        return Selection(kept, tokens.n_left, scores, Merge(kept, kept, scores[kept]))


def test_a_report_holds_no_graph() -> None:
    """A graph would hold all activations of the forward, and the model could not be copied."""
    model, inputs = tiny_llava().train(), prompt([1])
    with tokenprune.patch(model, Differentiable(keep_ratio=0.5)) as handle:
        model(**inputs, labels=labels_of(inputs)).loss.backward()
        (image,) = handle.report.images
        for one in (image, *image.stages):
            assert not one.scores.requires_grad
            assert not one.merged.weights.requires_grad
        copy.deepcopy(model)
