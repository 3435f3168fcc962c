"""Checks of settings, which raise SettingError. In its message, `owner` names what has the setting, and `what` says
what its value should be."""

from __future__ import annotations

from dataclasses import fields
from numbers import Integral, Real
from typing import Any, TypeGuard

from tokenprune.errors import SettingError, unknown


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is a number; True, False and NaN are not."""
    return isinstance(value, Real) and not isinstance(value, bool) and value == value


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether `value` is an integer; numpy's are, True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """Return numpy's and other foreign numbers as int or float, even inside tuples and lists; anything else as it is.
    Plain numbers keep equality, printing and JSON of settings simple."""
    if type(value) in (tuple, list):
        return type(value)(map(plain, value))
    if isinstance(value, int) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_flags(owner: str, **flags: object) -> None:
    """Raise SettingError unless every flag is True or False."""
    for field, value in flags.items():
        if not isinstance(value, bool):
            raise SettingError(f"{owner}: {field}={value!r} is neither True nor False; write {field}=True or False.")


def check_choice(owner: str, field: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise SettingError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingError(f"{owner}: {unknown(field, value, choices)} Write {field}={choices[0]!r}.")


def check_count(owner: str, field: str, value: object, what: str = "a positive integer") -> None:
    """Raise SettingError unless `value` is an integer of at least 1."""
    if not is_integer(value) or value < 1:
        raise SettingError(f"{owner}: {field}={value!r} is not {what}; write {field}=1 or more.")


def check_layer(owner: str, layer: object, what: str, example: int, field: str = "layer") -> None:
    """Raise SettingError unless `layer` is an integer, which may count from the end, or None."""
    if layer is not None and not is_integer(layer):
        raise SettingError(f"{owner}: {field}={layer!r} is not {what}; write {field}={example}, or None.")


def check_positive(owner: str, field: str, value: object, what: str) -> None:
    """Raise SettingError unless `value` is a number above 0."""
    if not is_number(value) or not value > 0:
        raise SettingError(f"{owner}: {field}={value!r} is not {what}; write a positive number.")


def check_share(owner: str, field: str, value: object, what: str = "a share") -> None:
    """Raise SettingError unless `value` is a number in 0..1."""
    if not is_number(value) or not 0 <= value <= 1:
        raise SettingError(f"{owner}: {field}={value!r} is not {what}; write a number in [0, 1].")


def check_mass(owner: str, mass: object) -> None:
    """Raise SettingError unless `mass` is a share of a total."""
    if not is_number(mass) or not 0 < mass <= 1:
        raise SettingError(f"{owner}: mass={mass!r} is not a share of the scores; write a number in (0, 1].")


def check_keep_ratio(owner: str, keep_ratio: object, otherwise: str = "") -> None:
    """Raise SettingError unless `keep_ratio` is a number in (0, 1]; `otherwise` is an alternative to suggest."""
    if not is_number(keep_ratio) or not 0 < keep_ratio <= 1:
        raise SettingError(
            f"{owner}: keep_ratio={keep_ratio!r} is not a fraction in (0, 1]. It is the fraction of visual tokens "
            f"KEPT: write keep_ratio=0.25 to keep a quarter of them{otherwise}."
        )


def check_budget(owner: str, keep_ratio: object, keep: object) -> None:
    """Raise SettingError unless exactly one of the two is set, to a possible budget."""
    if keep is None:
        check_keep_ratio(owner, keep_ratio, ", or keep=64 to keep 64")
    elif keep_ratio is not None:
        raise SettingError(
            f"{owner}: keep_ratio={keep_ratio!r} and keep={keep!r} are both set; write only one of them."
        )
    elif not is_integer(keep) or keep < 1:
        raise SettingError(
            f"{owner}: keep={keep!r} is not a count of visual tokens. Write an integer of at least 1, such as "
            f"keep=64, or a fraction: keep_ratio=0.25."
        )


def check_no_count(owner: str, keep: object) -> None:
    """Raise SettingError for a count of tokens, for strategies whose budget is an average over layers."""
    if keep is not None:
        raise SettingError(f"{owner}: keep is a count, but the budget is an average over layers. Use keep_ratio.")


def check_no_effect(strategy: Any, where: str, *names: str) -> None:
    """Raise SettingError if any of these settings differs from its default `where` ("with merge=False") it does
    nothing."""
    for field in fields(strategy):
        if field.name in names and (value := getattr(strategy, field.name)) != field.default:
            raise SettingError(
                f"{type(strategy).__name__}: {field.name}={value!r} has no effect {where}. Leave one of them out."
            )
