"""Where commands print."""

from rich.console import Console


def console(width: int) -> Console:
    """Return a console that prints text as it is: answers and paths may contain brackets, which rich would read as
    markup. It is as wide as the terminal; a pipe has no width and gets `width` columns."""
    return Console(width=None if Console().is_terminal else width, markup=False, emoji=False)
