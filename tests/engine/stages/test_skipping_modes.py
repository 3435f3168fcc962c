"""Skipped layers in models that are copied, compiled or dispatched by accelerate."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine.stages.test_skipping import Skipping
from helpers.contract.answers import answer
from helpers.contract.oracle import assert_close
from helpers.models.staged import LAYERS, model_of
from helpers.tiny import prompt
from torch import Tensor

import tokenprune


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
@pytest.mark.parametrize("patched_first", [False, True])
def test_accelerate(patched_first: bool, tmp_path: Any) -> None:
    """Its hooks wrap a layer's forward too, inside or outside of ours."""
    from accelerate import dispatch_model

    plain, inputs = model_of(), prompt([1])
    with tokenprune.patch(plain, Skipping()):
        skipping = answer(plain, inputs)
    whole, loaded = answer(plain, inputs), model_of()
    handle = tokenprune.patch(loaded, Skipping()) if patched_first else None
    places: dict[str, Any] = {name: "cpu" for name, _ in loaded.named_children() if name != "model"}
    places |= {f"model.{name}": "cpu" for name, _ in loaded.model.named_children() if name != "language_model"}
    language_model = "model.language_model"
    places |= {f"{language_model}.{name}": "cpu" for name in ("embed_tokens", "rotary_emb", "norm")}
    places |= {f"{language_model}.layers.{i}": "disk" if i == 2 else "cpu" for i in range(LAYERS)}
    device = torch.device("cpu")
    model: Any = dispatch_model(loaded, places, main_device=device, offload_dir=tmp_path, force_hooks=True)
    assert "_hf_hook" in vars(model.model.language_model.layers[2])
    handle = handle or tokenprune.patch(model, Skipping())
    assert torch.equal(answer(model, inputs).logits[-1], skipping.logits[-1])
    handle.remove()
    assert torch.equal(answer(model, inputs).logits[-1], whole.logits[-1])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_skips_by_itself(duplicate: Callable[[Any], Any]) -> None:
    model, inputs = model_of(), prompt([1])
    handle = tokenprune.patch(model, Skipping())
    twin = duplicate(model)
    skipping = answer(model, inputs).logits[0]
    handle.remove()
    whole = answer(model, inputs).logits[0]
    assert not torch.equal(whole, skipping)
    assert torch.equal(answer(model, inputs).logits[0], whole)
    assert torch.equal(answer(twin, inputs).logits[0], skipping)
    tokenprune.unpatch(twin)
    assert torch.equal(answer(twin, inputs).logits[0], whole)
    assert "forward" not in vars(twin.model.language_model.layers[2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("part", ["language_model", "layers"])
def test_compiled_models(part: str) -> None:
    """Compiled and run before the patch: the earlier code must not be used again."""
    torch.compiler.reset()
    plain, model, inputs = model_of(), model_of(), prompt([1])
    language_model = model.model.language_model
    for module in [language_model] if part == "language_model" else language_model.layers:
        module.compile(backend="eager")
    logits: list[Tensor] = []
    for one in (plain, model):
        with torch.no_grad():
            logits.append(one(**inputs).logits)
            with tokenprune.patch(one, Skipping(keep_ratio=1.0)):
                logits.append(one(**inputs).logits)
            logits.append(one(**inputs).logits)
    assert not torch.equal(logits[0], logits[1])
    for mine, theirs in zip(logits[3:], logits[:3], strict=True):
        assert_close(mine, theirs)
    torch.compiler.reset()
