"""Shell completion of strategies and their settings. Enabled by argcomplete's `register-python-argcomplete`."""

from dataclasses import fields


def complete_strategy(prefix: str, **_: object) -> list[str]:
    """Return the strategies whose names start with `prefix` or, after a colon, the settings of the one before it."""
    from tokenprune import STRATEGIES  # loads torch

    name, colon, rest = prefix.partition(":")
    if not colon or name not in STRATEGIES:
        return [name for name in STRATEGIES if name.startswith(prefix)]
    before, comma, begun = rest.rpartition(",")
    settings = [field.name for field in fields(STRATEGIES[name]) if field.name not in ("keep_ratio", "keep")]
    return [f"{name}:{before}{comma}{setting}=" for setting in settings if setting.startswith(begun)]
