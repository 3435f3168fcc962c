"""The command `tokenprune`, called in this process."""

from typing import Any

from tokenprune.__main__ import main


def command(*arguments: object) -> Any:
    """Return the command's exit status: 0, 2 for wrong usage, or its error message."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0
