"""What a prompt costs: waits for a GPU, and the files that it passes."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES
from helpers.simulated.pretended import DEVICE, Elsewhere, Pretended, moved
from helpers.tiny import CACHE, ON_LLAVA, prompt
from torch import Tensor

import tokenprune
from tokenprune import STRATEGIES

RATIOS = {"pyramiddrop": 0.5, "adatoken": 0.5}


@cache
def model_of() -> Any:
    return FAMILIES["llava-clip"].build(n_layers=4)


def forwards(model: Any, inputs: dict[str, Any]) -> tuple[list[Tensor], list[Pretended]]:
    """Return the logits of a prompt and of one decoded token on the simulated device, and what each call cost."""
    inputs, logits, took = {name: Elsewhere(tensor) for name, tensor in inputs.items()}, [], []
    mask, cache = inputs["attention_mask"], None
    with moved(model), torch.no_grad():
        for _ in range(2):
            with Pretended() as done:
                out = model(**inputs, **({} if cache is None else {CACHE: cache}), use_cache=True)
                cache, token = out[CACHE], out.logits[:, -1:].argmax(-1)
                mask = torch.cat([mask, torch.ones_like(token)], 1)
                inputs = {"input_ids": token, "attention_mask": mask}
            logits.append(out.logits.held)
            took.append(done)
    return logits, took


def on_the_cpu(model: Any, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("name", ON_LLAVA)
def test_a_prefill_waits_as_often_as_it_says(name: str) -> None:
    """A decode step never waits."""
    counts, prefill = [], Pretended()
    with tokenprune.patch(model_of(), STRATEGIES[name](keep_ratio=RATIOS.get(name, 0.3))):
        for images in ([1], [3], [5]):
            inputs = prompt(images)
            logits, (prefill, decode) = forwards(model_of(), inputs)
            assert_close(logits[0], on_the_cpu(model_of(), inputs))  # fused attention rounds differently
            assert not decode.ours, [str(wait) for wait in decode.ours]
            counts.append(len(prefill.ours))
    stated = STRATEGIES[name].record.waits
    if isinstance(stated, int):
        assert all(count <= stated * n_images for count, n_images in zip(counts, (1, 3, 5), strict=True))
        return
    first, third, fifth = counts
    assert fifth - third == third - first
    assert (first, (third - first) // 2) == stated, [str(wait) for wait in prefill.ours]


def test_what_makes_it_wait() -> None:
    there, mask = Elsewhere(torch.arange(3.0)), Elsewhere(torch.tensor([True, False, True]))
    asked: list[Callable[[], object]] = [
        lambda: there[1].item(),
        lambda: bool(mask.any()),
        there.tolist,
        there.cpu,
        lambda: there[mask],
        mask.nonzero,
        there.unique,
        lambda: torch.equal(there, there),
        lambda: torch.tensor([1, 2], device=DEVICE),
        lambda: torch.ones(3).to(DEVICE),
    ]
    with Pretended() as done:
        for ask in asked:
            before = len(done.waits)
            ask()
            assert len(done.waits) == before + 1
        once = len(done.waits)
        assert torch.where(mask, there, -there).device == DEVICE
        doubled = (there * 2 + torch.tensor(1.0)).argsort(descending=True)
        assert len(done.waits) == once
        assert doubled.tolist() == [2, 1, 0]
    assert not done.ours  # tests do not count as our files


def test_a_tensor_elsewhere_does_not_meet_the_cpus() -> None:
    with Pretended(), pytest.raises(RuntimeError, match="tensors on meta and on the CPU"):
        _ = Elsewhere(torch.ones(3)) + torch.ones(3)


# How many of our files one prompt passes through: the files that somebody who follows it must open.


TESTS = Path(__file__).parents[2]
MECHANISMS = ("engine/stages/", "engine/tower/")
#: In a separate process, because annotation checks in this one run code of ours that users do not run.
PREFILL = """
import sys
sys.path.insert(0, sys.argv[1])
from helpers.tiny import prompt, tiny_llava
from helpers.trace import files_entered
import tokenprune

model, inputs = tiny_llava(), prompt([1])
def answer(n_tokens):
    return files_entered(
        lambda: model.generate(**inputs, max_new_tokens=n_tokens, min_new_tokens=n_tokens, do_sample=False)
    )
for strategy in sys.argv[2:]:
    settings = {"layer": 1} if strategy == "fastv" else {}  # this model has two decoder layers
    with tokenprune.patch(model, strategy, keep_ratio=0.25, **settings):
        answer(1)  # what is made once is made now
        print(*answer(1))
def patched():
    with tokenprune.patch(model, tokenprune.FoPru(keep_ratio=0.25)):
        model(**inputs)
print(*files_entered(patched))
"""
ENTERED = ("fopru", "fastv", "flowcut")


@pytest.fixture(scope="module")
def entered_by() -> dict[str, list[str]]:
    run = subprocess.run(
        [sys.executable, "-c", PREFILL, str(TESTS), *ENTERED],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return dict(zip([*ENTERED, "patch"], map(str.split, run.stdout.splitlines()), strict=True))


def test_a_fopru_prefill_is_short_to_read(entered_by: dict[str, list[str]]) -> None:
    entered = entered_by["fopru"]
    assert len(set(entered)) <= 29, sorted(set(entered))  # six belong to the strategy, three to the cache
    assert len(entered) - 1 <= 95, entered
    assert not [file for file in entered if file.startswith(MECHANISMS)]
    assert {"engine/prefill.py", "engine/select.py", "strategies/pre_llm/fopru.py"} <= set(entered)


def test_a_patch_and_the_first_logits_are_short_to_read(entered_by: dict[str, list[str]]) -> None:
    """Beside what a prefill enters: what `patch` checks and registers."""
    entered = set(entered_by["patch"])
    assert len(entered) <= 35, sorted(entered)
    assert not [file for file in entered if file.startswith((*MECHANISMS, "engine/denoising/", "patching/untested.py"))]
    assert {"engine/pruner.py", "engine/prefill.py"} <= entered


@pytest.mark.parametrize(("strategy", "mechanism"), [("fastv", "engine/stages/"), ("flowcut", "engine/tower/")])
def test_a_mechanism_is_entered_where_a_strategy_asks_for_it(
    strategy: str, mechanism: str, entered_by: dict[str, list[str]]
) -> None:
    assert [file for file in entered_by[strategy] if file.startswith(mechanism)]
