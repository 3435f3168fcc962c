"""The command `tokenprune`: one file for each of its commands. To add one: a file, an import and a name in COMMANDS.

Command files import what is heavy inside their functions, so that `--help` and shell completion are quick.
"""

from typing import Annotated

import typer

import tokenprune
from tokenprune.evals.cli.bench import bench
from tokenprune.evals.cli.demo import demo
from tokenprune.evals.cli.eval import eval_
from tokenprune.evals.cli.explain import explain
from tokenprune.evals.cli.layers import layers
from tokenprune.evals.cli.nargs import SeveralValues
from tokenprune.evals.cli.optimize import optimize
from tokenprune.evals.cli.report import report

COMMANDS = {
    "demo": demo,
    "explain": explain,
    "eval": eval_,
    "report": report,
    "optimize": optimize,
    "layers": layers,
    "bench": bench,
}
#: Those whose options take several values.
SEVERAL = {"bench", "eval", "explain"}

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> bool:
    if wanted:
        print(f"tokenprune {tokenprune.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Prune the visual tokens of Hugging Face vision-language models."""


for _name, _command in COMMANDS.items():
    app.command(_name, cls=SeveralValues if _name in SEVERAL else None)(_command)
