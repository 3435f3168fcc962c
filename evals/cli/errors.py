"""What a command or a script says when tokenprune itself raised: the sentence, without the lines that led there."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tokenprune

EXTRA = 'pip install "tokenprune-vlm[evals]"'


@contextmanager
def plain_errors() -> Iterator[None]:
    """Exit with the message of an error that tokenprune raised itself; any other one is shown in full."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tokenprune"):
            raise
        sys.exit(f"The command needs {error.name}, which is not installed. Type: {EXTRA}")
    except (RuntimeError, ValueError, OSError) as error:
        if not _ours(error):
            raise
        sys.exit(f"Error: {error}")


def _ours(error: BaseException) -> bool:
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    library = Path(tokenprune.__file__).resolve().parent
    return any((library / part).resolve() in raised_in.parents for part in (".", "adapters", "evals"))
