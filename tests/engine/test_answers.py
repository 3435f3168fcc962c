"""Answers of a patched model, and calls by name."""

from collections.abc import Iterable
from inspect import signature
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import IMAGE, prompt, tiny_llava
from torch import Tensor, nn

import tokenprune
from tokenprune import DART, FastV, IVCPrune, PyramidDrop, SparseVLM, Strategy
from tokenprune.engine.stages.skipping import SkippedLayer
from tokenprune.sequence.packing import IGNORED_LABEL, PromptTokens
from tokenprune.strategy import StagedStrategy

#: For each row, the kinds of its columns (padding, text, visual token, label) and how many belong to the question.
ROWS = {
    "a question and its answer": ("tvvttll", 5),
    "padded on the left": ("..vvttl", 6),
    "padded on the right": ("vvttl..", 4),
    "two turns about one image": ("vvttllttll", 4),
    "an image in the second turn": ("vvtllvttll", 8),
    "no labels": ("vvttt", 5),
    "labels of all text": ("lvvlll", 6),
    "a prompt that ends in its image": ("ttvvll", 6),
    "no image": ("tttll", 3),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_question_ends_at_its_label(row: str) -> None:
    columns, n_asked = ROWS[row]
    visual, real = (torch.tensor([[one in kinds for one in columns]]) for kinds in ("v", "tvl"))
    labels = torch.tensor([[7 if one == "l" else IGNORED_LABEL for one in columns]])
    prompt = PromptTokens.of({"image": visual}, {"image": None}, real)
    with torch.device("meta"):  # stands in for a GPU as default device
        asked = prompt.without_answers(labels)
    assert asked.real[0].tolist() == [is_real and n < n_asked for n, is_real in enumerate(real[0].tolist())]
    assert torch.equal(asked.real, asked.real_cpu)


@pytest.mark.parametrize(
    "strategy",
    [
        FastV(keep_ratio=0.3, layer=1),
        PyramidDrop(keep_ratio=0.5),
        SparseVLM(keep_ratio=0.5),
        IVCPrune(keep_ratio=0.3, layer=1),
        DART(keep_ratio=0.3, layer=1),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_what_reads_the_question_does_not_read_the_answer(strategy: StagedStrategy) -> None:
    """In training, the same tokens are kept as in generation, which does not have the answer yet."""
    model = FAMILIES["llava-clip"].build(n_layers=4)
    asked = prompt([1, 1], texts=[6, 4])  # padded on the left
    answers = torch.randint(10, 20, (2, 5), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([asked["input_ids"], answers], 1)
    whole = {
        **asked,
        "input_ids": ids,
        "attention_mask": torch.nn.functional.pad(asked["attention_mask"], (0, 5), value=1),
    }
    labels = ids.clone()
    labels[:, :-5] = IGNORED_LABEL

    def kept(past_hooks: bool = False, **inputs: Any) -> list[list[int]]:
        with tokenprune.patch(model, strategy) as handle:
            (model.forward if past_hooks else model)(**inputs)
            return [stage.kept.tolist() for image in handle.report.images for stage in image.stages]

    assert kept(**whole, labels=labels) == kept(**asked)
    assert kept(past_hooks=True, **whole, labels=labels) == kept(**asked)  # like PEFT up to 0.20
    assert kept(**whole) != kept(**asked)  # without labels, nothing shows where the question ends
    everything = kept(**whole, labels=ids.masked_fill(ids == IMAGE, IGNORED_LABEL))
    assert everything == kept(**whole)  # nor do labels on all text


# Layers that get their hidden states as a keyword argument are pruned like others.


def call_by_name(layers: Iterable[Any]) -> None:
    """Make every layer's `__call__` pass all arguments by keyword, outside of all hooks."""
    for layer in layers:
        base = type(layer)
        names = list(signature(base.forward).parameters)[1:]

        def call(self: Any, *args: Any, base: Any = base, names: Any = names, **kwargs: Any) -> Any:
            return base.__call__(self, **dict(zip(names, args, strict=False)), **kwargs)

        layer.__class__ = type(base.__name__, (base,), {"__call__": call})


def pruned(model: Any, strategy: Strategy, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        logits = model(**inputs).logits
    assert handle.report.images[0].n_left < handle.report.images[0].n_visual
    return logits


def test_layers_of_a_decoder() -> None:
    strategy = FastV(layer=1)
    expected = pruned(tiny_llava(), strategy, prompt([1]))
    model = tiny_llava()
    call_by_name(model.model.language_model.layers)
    assert torch.equal(pruned(model, strategy, prompt([1])), expected)


def test_layers_of_a_tower_that_takes_all_images_in_one_row() -> None:
    family, strategy = FAMILIES["qwen2-vl"], tokenprune.PixelPrune(keep_ratio=0.5)
    inputs = family.prompt([1])
    expected = pruned(family.build(), strategy, inputs)
    model = family.build()
    call_by_name(model.model.visual.blocks)
    assert torch.equal(pruned(model, strategy, inputs), expected)


def test_a_skipped_layer_hands_on_what_it_is_given_by_name() -> None:
    layer, states = nn.Identity(), torch.ones(1, 2, 3)
    override = SkippedLayer(layer).install()
    assert layer(hidden_states=states, attention_mask=None) is states
    override.remove()
    assert layer(states) is states
