"""The catalogue's rows: which tokens each strategy keeps, from its record."""

import re
import sys

from tokenprune import strategies
from tokenprune.strategy import Strategy

#: What the README calls the strategies in each folder of `tokenprune.strategies`, or in a file there.
FOLDERS = {
    "pre_tower": "before the vision tower",
    "in_tower": "in the vision tower",
    "pre_llm": "before the language model",
    "video": "videos, by comparing frames",
    "in_llm": "inside the language model",
    "baselines": "to compare with",
    "compose": "several in sequence",
}


def summary() -> str:
    """Return the table of all strategies' names, in alphabetical order."""
    named = {folder: sorted((f"`{cls.__name__}`" for cls in _own(folder)), key=str.lower) for folder in FOLDERS}
    rows = [f"| {what} | {', '.join(named[folder])} |" for folder, what in FOLDERS.items()]
    return "\n".join(["| prunes | strategies |", "|---|---|", *rows]) + "\n"


def stored(folder: str) -> str:
    """Return the table of the strategies in one of FOLDERS."""
    rows = [f"| {_title(cls, folder)} | {cls.record.keeps} |" for cls in _own(folder)]
    return "\n".join(["| strategy | keeps |", "|---|---|", *rows]) + "\n"


def public_names() -> str:
    """Return what type checkers read of `tokenprune.strategies`, whose names are found at run time."""
    names, registry = strategies.__all__, strategies.register_strategy.__module__
    homes = {name: getattr(getattr(strategies, name), "__module__", registry) for name in (*names, "make", "parse")}
    lines = sorted(f"from {home} import {name} as {name}\n" for name, home in homes.items())
    listed = "".join(f'    "{name}",\n' for name in names)
    return f"# By `make tables`.\n\n{''.join(lines)}\n__all__ = [\n{listed}]\n"


def _own(folder: str) -> list[type[Strategy]]:
    home = f"{strategies.__name__}.{folder}"
    classes = (getattr(strategies, name) for name in strategies.__all__)
    own = [cls for cls in classes if isinstance(cls, type) and f"{cls.__module__}.".startswith(f"{home}.")]
    assert own, home
    return own


def _title(cls: type[Strategy], folder: str) -> str:
    """Return the class's name, linked to the paper that its module's docstring names."""
    paper = re.search(r"https://arxiv\.org/abs/[\d.]+", sys.modules[cls.__module__].__doc__ or "")
    if paper:
        return f"[`{cls.__name__}`]({paper[0]})"
    return f"`{cls.__name__}`" + ("" if folder in ("baselines", "compose") else " (ours)")
