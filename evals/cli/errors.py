"""Print a user's mistake as one sentence; a bug keeps its traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tokenprune.errors import TokenPruneError, to_install


@contextmanager
def plain_errors(extra: str = "evals") -> Iterator[None]:
    """Exit with the sentence of a TokenPruneError, or that names the file of an OSError. All others propagate.

    `extra` is the distribution's extra that holds what the command or script imports.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tokenprune"):
            raise
        package = error.name.partition(".")[0]
        sys.exit(f"This needs {package}, which is not installed. Type: {to_install(extra)}")
    except TokenPruneError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"Error: cannot read or write {error.filename}: {error.strerror or type(error).__name__}")
