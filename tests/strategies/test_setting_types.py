"""Settings of a wrong type raise our own error when the strategy is made."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tokenprune import DART, STRATEGIES, Compose, LateStep, SettingError, VFlowOpt

CLASSES = [*STRATEGIES.values(), LateStep]
#: Values that neither a flag nor a number may have. A flag may be True, an optional number None.
WRONG = ("yes", (0.5, 0.5), [1], {}, float("nan"))


def plain_settings(kind: str) -> list[tuple[Any, str, bool]]:
    """Return every setting of every strategy that is a flag ("bool") or a number ("float"), and whether it may be
    None."""
    return [
        (cls, field.name, "None" in str(field.type))
        for cls in CLASSES
        for field in fields(cls)
        if str(field.type).removesuffix(" | None") == kind
    ]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("cls", "name", "optional"), plain_settings("float"))
def test_a_number_is_nothing_else(cls: Any, name: str, optional: bool) -> None:
    for value in (*WRONG, True, *(() if optional or name == "keep_ratio" else (None,))):
        with pytest.raises(SettingError, match=f"{cls.__name__}: {name}="):
            cls(**{name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("cls", "name", "optional"), plain_settings("int"))
def test_a_whole_number_is_nothing_else(cls: Any, name: str, optional: bool) -> None:
    for value in (*WRONG, True, 2.5, float("inf"), *(() if optional else (None,))):
        with pytest.raises(SettingError, match=f"{cls.__name__}: .*{name}|{cls.__name__}: keep is a count"):
            cls(**{name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("cls", "name", "optional"), plain_settings("bool"))
def test_a_flag_is_true_or_false(cls: Any, name: str, optional: bool) -> None:
    for value in (*WRONG, 0, 1, None):
        with pytest.raises(SettingError, match=rf"{cls.__name__}: {name}=.*; write {name}=True or False\."):
            cls(**{name: value})


def test_there_are_some_of_each() -> None:
    assert (VFlowOpt, "cell", True) in plain_settings("float")
    assert (DART, "pivots", False) in plain_settings("int")
    assert (VFlowOpt, "recycle", False) in plain_settings("bool")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("steps", [5, "pixelprune+fopru", None])
def test_steps_are_a_list(steps: Any) -> None:
    with pytest.raises(
        SettingError, match=r"Compose: steps=.* is not a list; write steps=\[PixelPrune\(\), FoPru\(\)\]"
    ):
        Compose(steps=steps)
