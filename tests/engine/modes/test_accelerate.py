"""What accelerate does to a model besides placing it on devices: mixed precision, and compiling repeated layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers.contract.answers import STRATEGY, n_logits
from helpers.contract.oracle import assert_close
from helpers.tiny import prompt, tiny_llava

import tokenprune
from tokenprune import FastV, Strategy

PRUNED, WHOLE = 15, 42  # columns of prompt([1]): 6 of text, and 9 or 36 visual tokens


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """An accelerator for bfloat16 on the CPU. Its state is global, so it is reset afterwards."""
    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("first", ["patch", "prepare"])
def test_mixed_precision(accelerator: Accelerator, first: str) -> None:
    """It wraps and rebinds the model's forward. A copy, as for moving averages, has its own weights."""
    model, inputs = tiny_llava(), prompt([1])
    with torch.no_grad(), tokenprune.patch(model, STRATEGY), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(**inputs).logits.float()
    handle = tokenprune.patch(model, STRATEGY) if first == "patch" else None
    prepared = accelerator.prepare(model)
    handle = handle or tokenprune.patch(prepared, STRATEGY)
    with torch.no_grad():
        assert torch.equal(prepared(**inputs).logits, expected)
        twin = copy.deepcopy(prepared)
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(**inputs).logits.any()
        assert n_logits(twin, inputs) == PRUNED
        assert torch.equal(prepared(**inputs).logits, expected)
    unwrapped = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    assert n_logits(unwrapped, inputs) == PRUNED
    handle.remove()
    assert n_logits(unwrapped, inputs) == WHOLE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("first", "strategy"), [("patch", STRATEGY), ("compile", FastV(keep_ratio=0.25, layer=1))])
def test_regional_compilation(first: str, strategy: Strategy) -> None:
    """`compile_regions` makes a twin of the model, with compiled layers and the hooks of the original."""
    pytest.importorskip("accelerate", minversion="1.7")
    from accelerate.utils import compile_regions

    model, inputs, graphs = tiny_llava(), prompt([1]), []

    def compiled(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    with torch.no_grad(), tokenprune.patch(model, strategy):
        expected = model(**inputs).logits
    torch.compiler.reset()
    patched = tokenprune.patch(model, strategy) if first == "patch" else None
    twin = compile_regions(model, backend=compiled)
    handle = patched or tokenprune.patch(twin, strategy)
    with torch.no_grad():
        assert_close(twin(**inputs).logits, expected)
    assert graphs
    assert handle.report.images[0].n_left == 9
    tokenprune.unpatch(twin)
    assert n_logits(twin, inputs) == WHOLE
    torch.compiler.reset()
