"""The guide for strategy authors: its code runs, and its strategies prune."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import prompt

import tokenprune
from tokenprune.strategies import STRATEGIES
from tokenprune.tokens.visual import STATISTICS

GUIDE = (Path(tokenprune.__file__).parent / "strategies" / "README.md").read_text(encoding="utf-8")
NAMES = ("Norm", "Attended", "Folded", "LastToken")


@pytest.fixture
def classes() -> Iterator[dict[str, Any]]:
    """The names that the code of the guide defines, run from top to bottom."""
    before = dict(STRATEGIES)
    found: dict[str, Any] = {"__name__": "guide"}
    for code in re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M):
        exec(code, found)
    yield found
    STRATEGIES.clear()
    STRATEGIES.update(before)


@pytest.mark.parametrize("name", NAMES)
def test_its_strategies_prune(name: str, classes: dict[str, Any], llava: Any) -> None:
    with torch.no_grad(), tokenprune.patch(llava, classes[name](keep_ratio=0.25)) as handle:
        llava(**prompt([2, 1]))
    for image in handle.report.images:
        stages = image.stages
        assert len(stages[-1].kept if stages else image.kept) == 9
        assert (image.merged is not None) == (name == "Folded")


def test_it_defines_nothing_else_and_registers_one(classes: dict[str, Any]) -> None:
    own = {name for name, value in classes.items() if getattr(value, "__module__", None) == "guide"}
    assert own == set(NAMES)
    assert STRATEGIES["norm"] is classes["Norm"]


def test_its_table_has_every_statistic() -> None:
    assert set(re.findall(r'^\| `"(\w+)"`', GUIDE, flags=re.M)) == set(STATISTICS)


def test_it_is_short() -> None:
    assert len(GUIDE.splitlines()) <= 150
