"""The command `tokenprune`, also `python -m tokenprune`.

It is no part of the library, which imports no evals: it starts their commands.
"""

from collections.abc import Sequence

from tokenprune.evals.cli.errors import plain_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command in sys.argv, or in `arguments`."""
    with plain_errors():
        from tokenprune.evals.cli import app

        app(arguments, prog_name="tokenprune")


if __name__ == "__main__":
    main()
