"""Global settings of torch and its compiler."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families.llava import Llava
from helpers.models.tiled import inputs_of, model_of
from helpers.tokens.scored import drawn

import tokenprune
from tokenprune import STRATEGIES, BackgroundPruning
from tokenprune.engine.select import checked_selection
from tokenprune.strategy import PatchStrategy, ResizeStrategy, TowerStrategy
from tokenprune.tokens import Layout, VisualTokens
from tokenprune.tokens.cells import grid_cells

LLAVA = Llava("llava-clip")


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


ELSEWHERE = (ResizeStrategy, PatchStrategy, TowerStrategy)
BEFORE = [name for name, cls in STRATEGIES.items() if not issubclass(cls, ELSEWHERE)]
#: The meta device stands in for a GPU: tensors made there by mistake cannot be read.
SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "default device": partial(torch.device, "meta"),
    "default dtype": partial(default_dtype, torch.bfloat16),
}


def tokens_of(seed: int, n_frames: int) -> VisualTokens:
    return drawn(Layout(((n_frames, 16 // n_frames, 18),), n_frames), seed, width=32, head_width=16)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", BEFORE)
def test_selections_are_the_same(name: str, setting: str) -> None:
    strategy = STRATEGIES[name](keep_ratio=0.5 if name == "pyramiddrop" else 0.3)
    for seed in range(5):
        tokens = tokens_of(seed, 4 if "frames" in strategy.needs else 1)
        plain = checked_selection(strategy, tokens)
        with SETTINGS[setting]():
            other = checked_selection(strategy, tokens)
        assert torch.equal(other.kept, plain.kept)
        assert (other.scores is None) == (plain.scores is None)
        if other.scores is not None and plain.scores is not None:
            assert torch.equal(other.scores, plain.scores)
        if other.merged is not None and plain.merged is not None:
            assert torch.equal(other.merged.weights, plain.merged.weights)


def test_cells_of_a_wide_grid_with_another_default_dtype() -> None:
    """bfloat16 cannot hold places beyond 256."""
    layout = Layout.raster((1, 2, 400))
    expected, _ = grid_cells(layout, 2.0)
    with default_dtype(torch.bfloat16):
        assert torch.equal(grid_cells(layout, 2.0)[0], expected)


def test_a_model_with_another_default_device() -> None:
    """Layouts of tiles with newline tokens, stages and reports are made on the CPU anyway."""
    model, inputs = model_of("llava-next"), inputs_of("llava-next", video=False)
    strategy = BackgroundPruning(keep_ratio=0.3)
    with torch.no_grad():
        with tokenprune.patch(model, strategy):
            expected = model(**inputs).logits
        with torch.device("meta"), tokenprune.patch(model, strategy) as handle:
            assert torch.equal(model(**inputs).logits, expected)
    assert handle.report.n_kept < handle.report.n_visual


@pytest.mark.parametrize("strategy", ["tome", "mosaic:attention_bias=size", "sparsevlm:attention_bias=size"])
def test_a_model_with_another_default_dtype(strategy: str) -> None:
    """The number of tokens that a merged one stands for is counted in float32."""
    model, inputs = LLAVA.build(n_layers=4), LLAVA.prompt([1, 2])
    with torch.no_grad(), tokenprune.patch(model, strategy, keep_ratio=0.7):
        expected = model.generate(**inputs, max_new_tokens=2, return_dict_in_generate=True, output_logits=True).logits
        with default_dtype(torch.bfloat16):
            out = model.generate(**inputs, max_new_tokens=2, return_dict_in_generate=True, output_logits=True).logits
    assert torch.equal(torch.stack(out), torch.stack(expected))


# A patch changes settings of torch.compile, and restores them.


TESTS = Path(__file__).parents[2]
#: In a separate process, because the first patch of a process does more than later ones.
PATCHES = """
import sys
sys.path.insert(0, sys.argv[1])
import torch._dynamo
from helpers.tiny import tiny_llava
import tokenprune

torch._dynamo.config.skip_nnmodule_hook_guards = True
def skips():
    return torch._dynamo.config.skip_nnmodule_hook_guards
for _ in range(2):
    first = tokenprune.patch(tiny_llava(), "grid")
    second = tokenprune.patch(tiny_llava(), "grid")
    print(skips())
    first.remove()
    print(skips())
    second.remove()
    print(skips())
"""


def test_the_last_patch_that_is_removed_restores_the_settings() -> None:
    run = subprocess.run([sys.executable, "-c", PATCHES, str(TESTS)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["False", "False", "True"] * 2
