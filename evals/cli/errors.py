"""Report a user's mistake in one sentence, whatever characters it has; a bug keeps its traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from tokenprune.errors import TokenPruneError, missing_package

#: The exit status of a process that Ctrl-C has ended.
INTERRUPTED = 130


@contextmanager
def plain_errors(extra: str = "evals") -> Iterator[None]:
    """Exit with one sentence for a TokenPruneError, a missing package, an OSError that names a file, and Ctrl-C. All
    other exceptions propagate.

    `extra` is the extra of this package that installs what the command or script imports.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        sentence = missing_package(error, extra)
        if sentence is None:
            raise
        sys.exit(sentence)
    except TokenPruneError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. An evaluation, search, training or benchmark resumes with the same command.\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of the pipe, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        instead = ". Change its permissions, or name another" if isinstance(error, PermissionError) else ""
        sys.exit(f"Error: cannot read or write {error.filename}: {error.strerror or type(error).__name__}{instead}")


def escape_unprintable() -> None:
    """Make `print` escape characters that the output's encoding lacks, such as a dash in ISO 8859-1, and bytes of file
    names that are not UTF-8. Otherwise a long run could fail at the very end, when it prints its results."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
