"""Print a user's mistake as one sentence, and any character; a bug keeps its traceback."""

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
    """Exit with the sentence of a TokenPruneError, or that names the file of an OSError, or of Ctrl-C. All others
    propagate.

    `extra` is the distribution's extra that holds what the command or script imports.
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
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"Error: cannot read or write {error.filename}: {error.strerror or type(error).__name__}")


def escape_unprintable() -> None:
    """Let `print` escape what the output's encoding lacks, such as a dash in ISO 8859-1, and bytes of a file's name
    that are not UTF-8. As an error, it would come when everything is done."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
