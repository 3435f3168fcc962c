"""After the prompt, pruning inside the language model does not interfere with decoding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.files.search import deep_llava
from helpers.tiny import prompt

import tokenprune
from tokenprune.engine.stages.capture import TextCapture
from tokenprune.engine.stages.pruning import StagePruning
from tokenprune.evals.models.cache import cache_in
from tokenprune.sequence.packing import Packing

STRATEGIES = ("fastv", "pyramiddrop", "sparsevlm", "attentionmass")


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_decode_step_runs_nothing_of_the_stages(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No module of a decoder layer has a hook, and none of the functions of a prefill is called."""
    called: list[str] = []
    model, inputs = deep_llava(), prompt([1])
    with tokenprune.patch(model, name, keep_ratio=0.5):
        pass  # the first patch of a process replaces methods that the compiler must not trace

    def count(cls: type, method: str) -> None:
        original = getattr(cls, method)

        def counted(*args: Any, **kwargs: Any) -> Any:
            called.append(method)
            return original(*args, **kwargs)

        monkeypatch.setattr(cls, method, counted)

    for cls, method in (
        (StagePruning, "before_layer"),
        (TextCapture, "before_attention"),
        (TextCapture, "after_capture"),
    ):
        count(cls, method)
    with tokenprune.patch(model, name, keep_ratio=0.5), torch.no_grad():
        cache_name, cache = cache_in(model(**inputs))
        assert {"before_layer", "before_attention", "after_capture"} <= set(called)
        called.clear()
        model(input_ids=torch.tensor([[5]]), **{cache_name: cache})
        assert called == []
        layers = model.model.language_model.layers
        assert not any(one._forward_hooks or one._forward_pre_hooks for one in layers.modules())
    assert not any("forward" in vars(module) for module in layers.modules())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["fastv", "pyramiddrop"])
def test_compiled_layers_are_read_all_the_same(name: str) -> None:
    """Layers compiled before the patch, in the prompt, and in the steps after it."""
    model, inputs = deep_llava.__wrapped__(), prompt([1])  # other tests need the cached model uncompiled

    def logits() -> list[torch.Tensor]:
        with tokenprune.patch(model, name, keep_ratio=0.5) as handle, torch.no_grad():
            output = model(**inputs)
            cache_name, cache = cache_in(output)
            step = model(input_ids=torch.tensor([[5]]), **{cache_name: cache})
            assert handle.report.images[0].stages
        return [output.logits, step.logits]

    expected = logits()
    torch.compiler.reset()
    try:
        for layer in model.model.language_model.layers:
            layer.compile(backend="eager")
        for found, own in zip(logits(), expected, strict=True):
            torch.testing.assert_close(found, own)
    finally:
        torch.compiler.reset()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 2)])
def test_tokens_are_gathered_bit_for_bit(rows: int, shape: tuple[int, ...]) -> None:
    """Their gradients are exact too."""
    columns = torch.tensor([[0, 2, 4], [1, 2, 3]])[:rows]
    packing = Packing(columns, torch.ones_like(columns).bool(), 5, (3,) * rows)
    for given in {1, rows}:
        tensor = torch.randn(given, *shape, requires_grad=True)
        index = columns.reshape(rows, 3, *[1] * (tensor.ndim - 2)).expand(-1, -1, *shape[1:])
        expected = tensor.expand(rows, *shape).gather(1, index)
        found = packing.gather_tokens(tensor)
        assert torch.equal(found, expected)
        weights = torch.randn_like(found)
        (own,), (other,) = (torch.autograd.grad((one * weights).sum(), tensor) for one in (found, expected))
        assert torch.equal(own, other)
