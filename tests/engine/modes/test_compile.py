"""torch.compile: before or after the patch, the whole model or parts of it, and what `generate` compiles itself."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from engine.stages.test_skipping import Skipping
from helpers.contract.answers import STRATEGY, answer, assert_answers
from helpers.contract.oracle import assert_close
from helpers.tiny import CACHE, prompt, tiny_llava

import tokenprune
from tokenprune import FastV, Grid, Random, Strategy

ON_CPU = torch.get_default_device().type == "cpu"
BACKEND = "eager" if ON_CPU else "inductor"  # the former traces too, but needs no C++ compiler

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


def wrapped_base(model: Any) -> Any:
    """Put a module of another class there, which takes *args."""
    model.model = torch.compile(model.model, backend=BACKEND)
    return model


def wrapped_tower(model: Any) -> Any:
    model.model.vision_tower = torch.compile(model.model.vision_tower, backend=BACKEND)
    return model


def two_steps(model: Any, strategy: Strategy | None) -> torch.Tensor:
    """Return the logits of a prompt and of one decoded token."""
    with torch.no_grad(), nullcontext() if strategy is None else tokenprune.patch(model, strategy):
        out = model(**prompt([1]), use_cache=True)
        return torch.cat([out.logits, model(input_ids=torch.tensor([[5]]), **{CACHE: out[CACHE]}).logits], 1)


CASES = [
    *((compiled, STRATEGY) for compiled in (whole, forward, wrapped, language_model, layers)),
    *((compiled, Random(keep_ratio=0.25)) for compiled in (wrapped_base, wrapped_tower)),  # reads the tower's pixels
    *((compiled, FastV(keep_ratio=0.25, layer=1)) for compiled in (language_model, layers)),
    *((compiled, Skipping(layers=(1,))) for compiled in (language_model, layers)),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiled", "strategy"), CASES, ids=[f"{one.__name__} {type(strategy).__name__}" for one, strategy in CASES]
)
def test_compiled_models(compiled: Callable[[Any], Any], strategy: Strategy) -> None:
    """Code compiled without our hooks must not run under a patch, nor code compiled with them after it or under
    another one."""
    plain, model = tiny_llava(), compiled(tiny_llava())
    for under in (None, strategy, strategy, Grid(keep=4), None):
        assert_close(two_steps(model, under), two_steps(plain, under))


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
    config = CompileConfig(backend=BACKEND, mode=None if ON_CPU else "reduce-overhead")  # pyright: ignore[reportArgumentType]
    config._compile_all_devices = True  # pyright: ignore[reportAttributeAccessIssue]
    settings: dict[str, Any] = {"cache_implementation": "static", "compile_config": config}
    plain = answer(model, prompt(per_row), **settings).sequences
    out = assert_answers(model, llava, per_row, **settings)
    assert type(out[CACHE]).__name__ == "PrunedStaticCache"
    assert torch.equal(answer(model, prompt(per_row), **settings).sequences, plain)
