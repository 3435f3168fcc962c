"""How many of our files one prompt passes through: the files that somebody who follows it must open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
STRATEGIES = ("fopru", "fastv", "flowcut")


@pytest.fixture(scope="module")
def entered_by() -> dict[str, list[str]]:
    run = subprocess.run(
        [sys.executable, "-c", PREFILL, str(TESTS), *STRATEGIES], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return dict(zip([*STRATEGIES, "patch"], map(str.split, run.stdout.splitlines()), strict=True))


def test_a_fopru_prefill_is_short_to_read(entered_by: dict[str, list[str]]) -> None:
    entered = entered_by["fopru"]
    assert len(set(entered)) <= 29, sorted(set(entered))  # six belong to the strategy, three to the cache
    assert len(entered) - 1 <= 95, entered
    assert not [file for file in entered if file.startswith(MECHANISMS)]
    assert {"engine/prefill.py", "engine/select.py", "strategies/pre_llm/fopru.py"} <= set(entered)


def test_a_patch_and_the_first_logits_are_short_to_read(entered_by: dict[str, list[str]]) -> None:
    """Beside what a prefill enters: what `patch` checks and registers."""
    entered = set(entered_by["patch"])
    assert len(entered) <= 44, sorted(entered)
    assert not [file for file in entered if file.startswith((*MECHANISMS, "engine/denoising/", "patching/untested.py"))]
    assert {"engine/pruner.py", "engine/prefill.py"} <= entered


@pytest.mark.parametrize(("strategy", "mechanism"), [("fastv", "engine/stages/"), ("flowcut", "engine/tower/")])
def test_a_mechanism_is_entered_where_a_strategy_asks_for_it(
    strategy: str, mechanism: str, entered_by: dict[str, list[str]]
) -> None:
    assert [file for file in entered_by[strategy] if file.startswith(mechanism)]
