"""Tests that do not run every time run on another day: none is left out forever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from contract import rotation
from helpers.contract.cells import FIRST_CASE

CONTRACT = "tests/contract/test_contract.py::"
MASKING = CONTRACT + "test_dropping_equals_masking[fopru-{}-greedy-padded-{}]"
REMOVED = CONTRACT + "test_remove_leaves_nothing_behind[{}-{}]"
SHARED = CONTRACT + "test_dropping_equals_masking[random-{}-greedy-padded] {}"
FLEX = "tests/engine/modes/test_attention.py::test_flex_answers_as_masking[{}]"
#: Numbers for the names of many tests.
MANY = range(200)


def collected(node_id: str, name: str | None = None, case: str | None = None) -> Any:
    """Return a stand-in for a test, with what the rotation reads."""
    parameters = {key: value for key, value in (("name", name), ("case", case)) if value}
    return SimpleNamespace(nodeid=node_id, name=node_id.partition("::")[2], callspec=SimpleNamespace(params=parameters))


@pytest.mark.parametrize(
    ("items", "n_days"),
    [
        ([collected(MASKING.format(FIRST_CASE, n), "fopru", FIRST_CASE) for n in MANY], rotation.PARTS),
        ([collected(f"tests/engine/test_masks.py::test_rows[{n}]") for n in MANY], rotation.PARTS),
        ([collected(f"tests/engine/test_masks.py::test_rows[{n}]", case="qwen3-vl") for n in MANY], rotation.PARTS),
        ([collected(REMOVED.format("qwen3-vl", n), case="qwen3-vl") for n in MANY], rotation.PARTS // rotation.OFTEN),
        ([collected(f"{rotation.CASES[0]}[{n}]") for n in MANY], rotation.PARTS // rotation.OFTEN),
        ([collected(SHARED.format("qwen3.5", n), "random", "qwen3.5") for n in MANY], rotation.PARTS // rotation.OFTEN),
        ([collected(MASKING.format("qwen3.5", n), "fopru", "qwen3.5") for n in MANY], 1),
        ([collected(FLEX.format(n)) for n in MANY], 1),
    ],
    ids=["llava", "no family", "a family", "contract", "cases", "shared", "shared, all strategies", "seldom"],
)
def test_how_often(items: list[Any], n_days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [0] * len(items)
    for part in range(rotation.PARTS):
        monkeypatch.setenv(rotation.VARIABLE, str(part))
        runs = [rotation.runs(item) for item in items]
        days = [n + run for n, run in zip(days, runs, strict=True)]
        assert any(runs), "a day without any of these tests"
    assert set(days) == {n_days}


def test_what_is_named_runs() -> None:
    for argument in (
        rotation.SELDOM[0],
        rotation.CASES[1],
        f"{rotation.SELDOM[1]}::test_x",
        "tests/cli/test_cli.py::test_x",
    ):
        assert rotation.names_tests(argument)
    assert not rotation.names_tests("tests/cli")
