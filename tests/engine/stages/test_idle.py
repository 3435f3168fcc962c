"""Stages that have nothing to do, static caches, and skipped layers in every mode."""

from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close
from helpers.families.base import CACHE
from helpers.files.search import deep_llava
from helpers.models.staged import model_of
from helpers.tiny import prompt
from transformers import StaticCache

import tokenprune
from tokenprune import AttentionMass
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


# A static cache made by the caller, for rows without padding in which a stage keeps different numbers of tokens.


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_unequal_rows_in_a_static_cache(attention: str) -> None:
    """Found by the fuzz: without a mask from the caller, the stage's own mask had no columns for the cache's free
    room."""
    model = model_of(attention)
    inputs = prompt([1, 1], texts=[4, 4], seed=5)
    del inputs["attention_mask"]
    room = StaticCache(config=model.config.get_text_config(), max_cache_len=64)
    with torch.no_grad(), tokenprune.patch(model, AttentionMass(keep_ratio=1.0, mass=0.6, layer=1)) as handle:
        expected = model(**inputs, use_cache=True)
        assert len({len(image.stages[0].kept) for image in handle.report.images}) > 1
        found = model(**inputs, **{CACHE: room}, use_cache=True)
        assert_close(found.logits, expected.logits)
        token = torch.full((2, 1), 5)
        after = [model(input_ids=token, **{CACHE: out[CACHE]}, use_cache=True) for out in (expected, found)]
    assert_close(after[1].logits, after[0].logits)
