"""Tables in a document, between two marks that name what makes them."""


def put_into(text: str, name: str, tables: str) -> str:
    """Return `text` with `tables` between the two marks of `name` in it, in place of whatever was there.

    Raises ValueError if the marks are not there, each once.
    """
    begin, end = marks(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"needs the lines {begin.strip()} and {end.strip()}, each once and in this order")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{tables}\n{end}{after}"


def marks(name: str) -> tuple[str, str]:
    """The lines before and behind what `name` makes."""
    return f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
