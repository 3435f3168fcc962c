"""The command `tokenprune`, also `python -m tokenprune`.

It is no part of the library, which imports no evals: it starts their commands.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

EXTRA = 'pip install "tokenprune-vlm[evals]"'


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command in sys.argv, or in `arguments`.

    An error that tokenprune raised itself is shown as its message, any other one in full.
    """
    try:
        from tokenprune.evals.cli import app

        app(arguments, prog_name="tokenprune")
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
    here = Path(__file__).resolve().parent
    return any((here / part).resolve() in raised_in.parents for part in (".", "adapters", "evals"))


if __name__ == "__main__":
    main()
