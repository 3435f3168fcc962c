"""What the shell completes in options whose values have names."""

from dataclasses import fields

import tokenprune


def strategies(incomplete: str) -> list[str]:
    """The strategies, and behind a colon the settings of one."""
    name, colon, rest = incomplete.partition(":")
    if not colon or name not in tokenprune.STRATEGIES:
        return [name for name in tokenprune.STRATEGIES if name.startswith(incomplete)]
    before, comma, begun = rest.rpartition(",")
    settings = [field.name for field in fields(tokenprune.STRATEGIES[name]) if field.name not in ("keep_ratio", "keep")]
    return [f"{name}:{before}{comma}{setting}=" for setting in settings if setting.startswith(begun)]
