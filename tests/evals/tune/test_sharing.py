"""One pass of the vision tower for all setups gives bitwise the same as each of them alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers.contract.cells import DEPTH, model_of
from helpers.families import FAMILIES

import tokenprune
from tokenprune import DivPrune, FastV, FlowCut, FoPru, Nuwa, Random, VisionZip
from tokenprune.adapters import adapter_for
from tokenprune.evals.tune.sharing import shared_encoder, shares

SHARING = [
    FoPru(keep_ratio=0.3),
    FoPru(keep_ratio=0.5, layer=-2),
    VisionZip(keep_ratio=0.3, layer=-2),
    DivPrune(keep_ratio=0.3),
    Random(keep_ratio=0.3),
    FastV(keep_ratio=0.3),
    Nuwa(keep_ratio=0.5, layer=-2),
]


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """Yield a list that grows with each call of the tower's first layer."""
    adapter, calls = adapter_for(model), []
    layer = adapter.tower.layers(adapter.vision_tower)[0]
    hook = layer.register_forward_pre_hook(lambda *_: calls.append(1))
    yield calls
    hook.remove()


def logits(model: Any, inputs: dict[str, Any]) -> dict[Any, torch.Tensor]:
    found = {None: model(**inputs).logits}
    for strategy in SHARING:
        with tokenprune.patch(model, strategy):
            found[strategy] = model(**inputs).logits
    return found


@pytest.mark.parametrize("case", ["llava-clip", "llava-siglip", "llava-next", "qwen2.5-vl", "qwen3-vl", "internvl"])
def test_every_setup_computes_what_it_computes_alone(case: str) -> None:
    model, family = model_of(case, DEPTH), FAMILIES[case]
    with torch.inference_mode(), counted(model) as calls:
        batches = [family.prompt([1, 2]), family.prompt([1])]
        alone = [logits(model, inputs) for inputs in batches]
        once = len(calls) // len(alone[0])
        calls.clear()
        with shared_encoder(model, SHARING):
            together = [logits(model, inputs) for inputs in batches]
    assert len(calls) == once  # once per batch
    for expected, found in zip(alone, together, strict=True):
        for strategy, one in expected.items():
            assert torch.equal(found[strategy], one), strategy
    assert len({float(one.sum()) for one in alone[0].values()}) == len(alone[0])  # so the setups differ


def test_other_images_are_encoded_anew_and_nothing_is_left_behind() -> None:
    model, family = model_of("llava-clip", DEPTH), FAMILIES["llava-clip"]
    tower = adapter_for(model).vision_tower
    first, second = family.prompt([1], seed=1), family.prompt([1], seed=2)
    with torch.inference_mode(), counted(model) as calls:
        expected = model(**second).logits
        calls.clear()
        with shared_encoder(model, SHARING):
            model(**first)
            assert torch.equal(model(**second).logits, expected)
            model(**second)
        assert len(calls) == 2
        assert "forward" not in vars(tower)
        model(**second)
        assert len(calls) == 3


def test_as_many_calls_are_remembered_as_asked() -> None:
    model, family = model_of("llava-clip", DEPTH), FAMILIES["llava-clip"]
    prompts = [family.prompt([1], seed=seed) for seed in range(3)]
    with torch.inference_mode(), counted(model) as calls:
        expected = [model(**prompt).logits for prompt in prompts]
        calls.clear()
        with shared_encoder(model, SHARING, remembered=2):
            for number in (0, 1, 0, 1, 2, 1, 0):
                assert torch.equal(model(**prompts[number]).logits, expected[number])
    assert len(calls) == 4  # 0, 1, 2, and 0 again, which was the oldest when 2 came


def test_a_strategy_that_prunes_in_the_tower_shares_nothing() -> None:
    assert all(map(shares, SHARING))
    assert not shares(FlowCut())
