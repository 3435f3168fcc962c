"""torch.compile: before or after the patch, the whole model or parts of it, and what `generate` compiles itself."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers.contract.answers import STRATEGY, answer, assert_answers, n_logits
from helpers.tiny import CACHE, prompt, tiny_llava

import tokenprune
from tokenprune import Grid, Random

PRUNED, WHOLE = 15, 42  # columns of prompt([1]): 6 of text, and 9 or 36 visual tokens
BACKEND = "eager"  # traces too, but needs no C++ compiler

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """As in a new process: no compiled code, and torch.compile's own setting for hooks."""
    config: Any = torch._dynamo.config
    with config.patch(skip_nnmodule_hook_guards=True):
        torch.compiler.reset()
        yield
    torch.compiler.reset()


def whole(model: Any) -> Any:
    model.compile(backend=BACKEND)
    return model


def forward(model: Any) -> Any:
    model.forward = torch.compile(model.forward, backend=BACKEND)
    return model


def wrapped(model: Any) -> Any:
    return torch.compile(model, backend=BACKEND)


def language_model(model: Any) -> Any:
    model.model.language_model.compile(backend=BACKEND)
    return model


def layers(model: Any) -> Any:
    """Compile layer by layer: all layers share the code compiled for the first."""
    for layer in (*model.model.language_model.layers, *model.model.vision_tower.modules()):
        if type(layer).__name__.endswith(("DecoderLayer", "EncoderLayer")):
            layer.compile(backend=BACKEND)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [whole, forward, wrapped, language_model, layers])
def test_compiled_models(compiled: Callable[[Any], Any]) -> None:
    """Code compiled without our hooks must not run under a patch, nor code compiled with them after it."""
    inputs, model = prompt([1]), compiled(tiny_llava())
    assert n_logits(model, inputs) == WHOLE
    handle = tokenprune.patch(model, STRATEGY)
    assert [n_logits(model, inputs) for _ in range(2)] == [PRUNED] * 2
    assert handle.report.n_kept == 9
    tokenprune.unpatch(model)
    assert n_logits(model, inputs) == WHOLE


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [language_model, layers])
def test_code_compiled_for_one_patch_is_not_used_for_another(compiled: Callable[[Any], Any]) -> None:
    inputs, model = prompt([1]), compiled(tiny_llava())
    tokenprune.patch(model, STRATEGY)
    assert n_logits(model, inputs) == PRUNED
    handle = tokenprune.patch(model, Grid(keep=4))
    assert n_logits(model, inputs) == 10
    assert handle.report.n_kept == 4
    tokenprune.unpatch(model)
    assert n_logits(model, inputs) == WHOLE


@pytest.mark.slow
@pytest.mark.parametrize("part", ["model", "model.vision_tower"])
def test_a_part_in_a_wrapper(part: str) -> None:
    """`model.model = torch.compile(model.model)` puts a module of another class there, which takes *args."""
    model, inputs = tiny_llava(), prompt([1])
    parent, _, name = part.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, name, torch.compile(getattr(owner, name), backend=BACKEND))
    with tokenprune.patch(model, Random(keep_ratio=0.25)):  # reads the pixels in the tower's call
        assert n_logits(model, inputs) == PRUNED
    assert n_logits(model, inputs) == WHOLE


@pytest.mark.slow
def test_compiled_after_the_patch(llava: Any) -> None:
    model = tiny_llava()
    tokenprune.patch(model, STRATEGY)
    model.compile(backend=BACKEND)
    assert_answers(model, llava, [1, 2])


@pytest.mark.slow
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
def test_what_generate_compiles(llava: Any, per_row: list[int]) -> None:
    """With a static cache on a GPU, `generate` compiles the decode steps; on a CPU, it can be made to."""
    from transformers import CompileConfig

    model = tiny_llava()
    config = CompileConfig(backend=BACKEND, mode=None)  # pyright: ignore[reportArgumentType]
    config._compile_all_devices = True  # pyright: ignore[reportAttributeAccessIssue]
    settings: dict[str, Any] = {"cache_implementation": "static", "compile_config": config}
    plain = answer(model, prompt(per_row), **settings).sequences
    out = assert_answers(model, llava, per_row, **settings)
    assert type(out[CACHE]).__name__ == "PrunedStaticCache"
    assert torch.equal(answer(model, prompt(per_row), **settings).sequences, plain)
