"""Memory of a patched model: no unpruned tensors survive pruning, and 100 calls leave nothing behind."""

import gc
import weakref
from functools import cache, partial
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import ON_LLAVA, prompt
from helpers.tokens.scored import drawn
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import tokenprune
from tokenprune import STRATEGIES
from tokenprune.strategy import PatchStrategy, StagedStrategy, TowerStrategy
from tokenprune.tokens import (
    FirstLayerInputs,
    Layout,
    PatchTokens,
    StageTokens,
    TextAttention,
    TowerTokens,
    VisionAttention,
    VisualTokens,
)

RATIOS = {"pyramiddrop": 0.5}
N_COLUMNS, WIDTH = 70, 32  # of prompt([1], texts=[17]), a length that occurs nowhere else
TOWER_HEADS = (4, 37, 8)  # heads, CLS token and patches, width
PIXELS = (3, 24, 24)


@cache
def model_of() -> Any:
    return FAMILIES["llava-clip"].build(n_layers=4)


def strategy_of(name: str) -> tokenprune.Strategy:
    return STRATEGIES[name](keep_ratio=RATIOS.get(name, 0.3))


class Made(TorchDispatchMode):
    """Weakly references the tensors that operations make, except views of `inputs`.

    largest: the number of elements of the largest one.
    """

    def __init__(self, inputs: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.made: list[weakref.ref[Tensor]] = []
        self.inputs = {one.untyped_storage().data_ptr() for one in (inputs or {}).values()}
        self.largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        made = [one for one in tree_flatten(out)[0] if isinstance(one, Tensor)]
        made = [one for one in made if one.untyped_storage().data_ptr() not in self.inputs]
        self.made += map(weakref.ref, made)
        self.largest = max([self.largest, *(one.untyped_storage().nbytes() // one.itemsize for one in made)])
        return out

    def alive(self, *shapes: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the shapes of the tensors whose last axes have one of these shapes. Tensors that share memory count
        once."""
        found = [one for ref in self.made if (one := ref()) is not None]
        found = [one for one in found if any(one.shape[-len(shape) :] == shape for shape in shapes)]
        return [tuple(one.shape) for one in {one.data_ptr(): one for one in found}.values()]


@pytest.mark.parametrize("name", ON_LLAVA)
def test_nothing_whole_outlives_the_pruning(name: str) -> None:
    """Embeddings and hidden states of all columns, and the vision tower's statistics, are freed, except the embeddings
    that transformers' own base model holds while it runs."""
    model, inputs, last_layer = model_of(), prompt([1], texts=[17]), []
    assert inputs["input_ids"].shape[1] == N_COLUMNS

    def note(*_: object) -> None:
        last_layer.append(made.alive((N_COLUMNS, WIDTH), TOWER_HEADS, PIXELS))

    hook = model.model.language_model.layers[-1].register_forward_pre_hook(note)
    with tokenprune.patch(model, strategy_of(name)), torch.no_grad():
        with Made(inputs) as made:
            out = model.generate(**inputs, max_new_tokens=3, return_dict_in_generate=True)
        assert made.alive((N_COLUMNS, WIDTH), TOWER_HEADS, PIXELS, (37, WIDTH)) == []
        with Made(inputs) as made:
            model(**inputs)  # encodes the image inside the call
    hook.remove()
    prefill, *decode, forward = last_layer
    assert prefill == forward == [(1, N_COLUMNS, WIDTH)]
    assert decode == [[], []]
    assert made.alive((N_COLUMNS, WIDTH), TOWER_HEADS, PIXELS, (37, WIDTH)) == []
    assert out.sequences.shape[1] == N_COLUMNS + 3


@pytest.mark.parametrize("name", ON_LLAVA)
def test_calls_leave_nothing_behind(name: str) -> None:
    model, inputs = model_of(), prompt([1])

    def held() -> tuple[int, int]:
        gc.collect()
        # Leaves out the compiler's kinds of tensors, which other tests in this process may have left.
        tensors = [one for one in gc.get_objects() if type(one) in (Tensor, torch.nn.Parameter)]
        return len(tensors), sum(one.nbytes for one in tensors)

    def calls(n: int) -> tuple[int, int]:
        for _ in range(n):
            with torch.no_grad():
                model.generate(**inputs, max_new_tokens=2)
        return held()

    gc.freeze()  # so that objects of other tests are neither searched nor counted
    with tokenprune.patch(model, strategy_of(name)):
        before = calls(2)
        after = calls(100 if name in ("fopru", "fastv") else 5)
    assert all(now <= then for now, then in zip(after, before, strict=True))


MANY = (64, 72)  # visual tokens, more than 4,096
N_MANY = 64 * 72


def many_tokens(n_frames: int = 1) -> VisualTokens:
    """Return the tokens of an image, or of a video with as many in all frames together."""
    return drawn(Layout(((n_frames, MANY[0] // n_frames, MANY[1]),), n_frames))


def many_left() -> StageTokens:
    """Return the same on entry to a stage, after 16 text tokens and before 32 others."""
    generator = torch.Generator().manual_seed(0)
    n_tokens = 16 + N_MANY + 32
    queries, keys = torch.randn(2, 2, n_tokens, 4, generator=generator)
    visual, text = torch.arange(16, 16 + N_MANY), torch.arange(16 + N_MANY, n_tokens)
    real, rotation = torch.ones(n_tokens).bool(), torch.randn(2, n_tokens, 4, generator=generator)
    attention = TextAttention(queries, keys, 0.5, real, visual, text, values=keys, rotation=rotation)
    features, after = torch.randn(N_MANY, 8, generator=generator), torch.randn(32, 8, generator=generator)
    layout, scores = Layout.raster((1, *MANY)), torch.rand(N_MANY, generator=generator)
    prompt = partial(FirstLayerInputs, features, after)
    return StageTokens(features, torch.arange(N_MANY), layout, scores, attention, prompt, after)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "downsample"])  # it compares no tokens
def test_no_map_over_all_pairs_of_many_tokens(name: str) -> None:
    """Also no other tensor that grows with the square of their number."""
    # SCOPE compares all tokens anew for each that it keeps.
    strategy, left = STRATEGIES[name](keep_ratio=0.02) if name == "scope" else strategy_of(name), many_left()
    tokens = many_tokens(16 if "frames" in strategy.needs else 1)
    with Made() as made:
        if isinstance(strategy, PatchStrategy):
            strategy.select_patches(PatchTokens(torch.rand(N_MANY, 12), (1, *MANY)))
        elif not isinstance(strategy, TowerStrategy):
            strategy.select(tokens)
        else:
            attention, values = tokens.vision_attention, torch.randn(2, N_MANY + 1, 4)
            strategy.select_in_tower(TowerTokens(0, 0, attention, values, torch.arange(N_MANY), N_MANY, N_MANY))
        for stage in strategy.stages(16) if isinstance(strategy, StagedStrategy) else ():
            assert isinstance(strategy, StagedStrategy)
            strategy.select_at(stage, left)
    assert 0 < made.largest < N_MANY**2


@pytest.mark.parametrize("score", [VisionAttention.received, VisionAttention.cls_row, VisionAttention.cls_logits])
@pytest.mark.parametrize("heads", ["mean", "max"])
def test_attention_of_many_tokens_is_computed_in_blocks(score: Any, heads: Any) -> None:
    attention = many_tokens().vision_attention
    with Made() as made:
        score(attention, *([] if score is VisionAttention.cls_logits else [heads]))
    assert 0 < made.largest < N_MANY**2 / 64


@pytest.mark.parametrize("score", [TextAttention.from_last, TextAttention.from_text, TextAttention.from_all])
def test_attention_to_many_tokens_is_computed_in_blocks(score: Any) -> None:
    with Made() as made:
        score(many_left().attention)
    assert 0 < made.largest < N_MANY**2 / 32
