"""Models that `device_map` spreads over two devices, one of them simulated: tensors of the two must never meet."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES
from helpers.simulated.pretended import CPU, DEVICE, Elsewhere, Pretended, moved
from helpers.tiny import CACHE
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import tokenprune
from tokenprune.strategy import Strategy

#: Strategies with a stage among the layers on the second device, or at the border: merging, reading what has entered,
#: several stages, and reading other inputs of a layer.
INSIDE = [
    tokenprune.FastV(keep_ratio=0.25, layer=3),
    tokenprune.DART(keep_ratio=0.25, layer=2),
    tokenprune.IVCPrune(keep_ratio=0.25, layer=3),
    tokenprune.AdaToken(keep_ratio=0.5),
    tokenprune.PyramidDrop(keep_ratio=0.5, cells="auto"),
    tokenprune.SparseVLM(keep_ratio=0.5, attention_bias="size"),
]
#: Strategies that read the tower, or prune in it.
BEFORE = [
    tokenprune.FoPru(keep_ratio=0.25, cells="auto"),
    tokenprune.Random(keep_ratio=0.25),
    tokenprune.PruMerge(keep_ratio=0.25, attention_bias="size"),
    tokenprune.BackgroundPruning(keep_ratio=0.25),
    tokenprune.Mosaic(keep_ratio=0.25),
    tokenprune.VFlowOpt(keep_ratio=0.25, alpha=1.0),
    tokenprune.Nuwa(keep_ratio=0.25),
    tokenprune.FlowCut(keep_ratio=0.25),
    tokenprune.ToMe(keep_ratio=0.25),
]


@cache
def model_of() -> Any:
    return FAMILIES["llava-clip"].build(n_layers=4)


def to(device: torch.device, values: Any) -> Any:
    return tree_map_only(Tensor, lambda one: one.to(device), values)


def takes_inputs_to(device: torch.device, module: nn.Module) -> Callable[[], None]:
    """Move the arguments of a module to a device, as accelerate does. Returns a function that undoes it."""
    plain, before = module.forward, vars(module).get("forward")

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return plain(*to(device, args), **to(device, kwargs))

    def undo() -> None:
        del module.forward
        if before is not None:
            module.forward = before

    module.forward = forward
    return undo


@contextmanager
def spread(there: list[nn.Module], back: list[nn.Module]) -> Iterator[None]:
    """Within the block, some modules are on DEVICE, and others move their inputs from there back to the CPU."""
    with ExitStack() as stack:
        for module in there:
            stack.enter_context(moved(module))
            stack.callback(takes_inputs_to(DEVICE, module))
        for module in back:
            stack.callback(takes_inputs_to(CPU, module))
        yield


def two_steps(model: Any, inputs: dict[str, Any]) -> Tensor:
    """Return the logits of the last prompt token, and of one decoded token."""
    with torch.no_grad():
        out = model(**inputs, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(token)], 1)
        more = model(input_ids=token, attention_mask=mask, **{CACHE: out[CACHE]})
    return torch.cat([out.logits[:, -1:], more.logits], 1)


def assert_the_same(strategy: Strategy, there: list[nn.Module], back: list[nn.Module], patched_first: bool) -> None:
    """Check that the model answers as on one device."""
    model, inputs = model_of(), FAMILIES["llava-clip"].prompt([1, 2])
    with tokenprune.patch(model, strategy):
        expected = two_steps(model, inputs)
    with ExitStack() as stack:
        if patched_first:
            stack.enter_context(tokenprune.patch(model, strategy))
            stack.enter_context(spread(there, back))
        else:
            stack.enter_context(spread(there, back))
            stack.enter_context(tokenprune.patch(model, strategy))
        with Pretended():
            found = two_steps(model, inputs)
    assert_close(found.held if isinstance(found, Elsewhere) else found, expected)


@pytest.mark.parametrize("patched_first", [False, True], ids=["", "patched_first"])
@pytest.mark.parametrize("strategy", INSIDE, ids=lambda strategy: type(strategy).__name__)
def test_the_later_layers_are_elsewhere(strategy: Strategy, patched_first: bool) -> None:
    model = model_of()
    language_model = model.model.language_model
    assert_the_same(strategy, [*language_model.layers[2:], language_model.norm], [model.lm_head], patched_first)


@pytest.mark.parametrize("strategy", BEFORE, ids=lambda strategy: type(strategy).__name__)
def test_the_tower_is_elsewhere(strategy: Strategy) -> None:
    model = model_of()
    assert_the_same(strategy, [model.model.vision_tower], [model.model.multi_modal_projector], patched_first=False)


def test_the_embeddings_are_elsewhere() -> None:
    model = model_of()
    language_model = model.model.language_model
    assert_the_same(
        tokenprune.SparseVLM(keep_ratio=0.5),
        [language_model.embed_tokens, language_model.rotary_emb, *language_model.layers, language_model.norm],
        [model.lm_head],
        patched_first=False,
    )
