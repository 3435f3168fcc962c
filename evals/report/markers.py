"""Generated tables in Markdown documents, each between two comments that name it."""

import re
from collections.abc import Callable, Mapping

from tokenprune.errors import DataError

_BEGIN = re.compile(r"^<!-- table: (.+) -->$", re.MULTILINE)


def marks(name: str) -> tuple[str, str]:
    """Return the lines before and after the table `name`."""
    return f"<!-- table: {name} -->\n", f"<!-- end of table: {name} -->\n"


def names_in(text: str) -> list[str]:
    """List the tables that a document has markers for, in its order."""
    return _BEGIN.findall(text)


def fill(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """Replace every table that `text` has markers for and that `tables` can make; leave the others alone."""
    for name in names_in(text):
        if name in tables:
            text = replace_block(text, name, tables[name]())
    return text


def replace_block(text: str, name: str, tables: str) -> str:
    """Return `text` with `tables` between the two markers of `name`, in place of what was there.

    Raises DataError unless each marker is there exactly once, in the right order.
    """
    begin, end = marks(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise DataError(f"the document needs the lines {begin.strip()} and {end.strip()}, each once and in this order")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{tables}\n{end}{after}"
