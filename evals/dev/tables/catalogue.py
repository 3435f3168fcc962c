"""The catalogue's rows: which tokens each strategy keeps, from its record."""

import re
import sys

from tokenprune import strategies
from tokenprune.strategy import Strategy


def stored(folder: str) -> str:
    """Return the table of the strategies that are in a folder of `tokenprune.strategies`, or in a file there."""
    home = f"{strategies.__name__}.{folder}"
    classes = (getattr(strategies, name) for name in strategies.__all__)
    own = [one for one in classes if isinstance(one, type) and f"{one.__module__}.".startswith(f"{home}.")]
    assert own, home
    rows = [f"| {_title(cls, folder)} | {cls.record.keeps} |" for cls in own]
    return "\n".join(["| strategy | keeps |", "|---|---|", *rows]) + "\n"


def public_names() -> str:
    """Return what type checkers read of `tokenprune.strategies`, whose names are found at run time."""
    names, registry = strategies.__all__, strategies.register_strategy.__module__
    homes = {name: getattr(getattr(strategies, name), "__module__", registry) for name in (*names, "make", "parse")}
    lines = sorted(f"from {home} import {name} as {name}\n" for name, home in homes.items())
    listed = "".join(f'    "{name}",\n' for name in names)
    return f"# By `make tables`.\n\n{''.join(lines)}\n__all__ = [\n{listed}]\n"


def _title(cls: type[Strategy], folder: str) -> str:
    """Return the class's name, linked to the paper that its module's docstring names."""
    paper = re.search(r"https://arxiv\.org/abs/[\d.]+", sys.modules[cls.__module__].__doc__ or "")
    if paper:
        return f"[`{cls.__name__}`]({paper[0]})"
    return f"`{cls.__name__}`" + ("" if folder in ("baselines", "compose") else " (ours)")
