"""The command `tokenprune`: one module for each of its subcommands.

actions, adapt, bench, eval, explain, layers, models, optimize, paper, report, serve, sets, tune  the subcommands
output     where commands print
errors     turns errors into messages without a traceback

To add a command, write a module with `EXTRA`, `add_options(parser)` and `run(options)`, and add its name to COMMANDS.
The docstring of `run` is its help text. With `PASSES_ON`, arguments that the parser does not know are collected in
`options.passed_on`, and the model may come first, without `--model`. Modules import anything heavy inside `run`, to
keep `--help` and shell completion fast.
"""

from __future__ import annotations

import inspect
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module

import tokenprune
from tokenprune.errors import unknown
from tokenprune.evals.arguments.parser import Formatter, script_parser, unrecognized
from tokenprune.evals.arguments.settings import arguments_of
from tokenprune.evals.cli import (
    actions,
    adapt,
    bench,
    explain,
    layers,
    models,
    optimize,
    paper,
    report,
    serve,
    sets,
    tune,
)
from tokenprune.evals.cli import eval as eval_
from tokenprune.evals.cli.errors import escape_unprintable, plain_errors

COMMANDS = {
    "explain": explain,
    "eval": eval_,
    "report": report,
    "paper": paper,
    "tune": tune,
    "adapt": adapt,
    "optimize": optimize,
    "layers": layers,
    "bench": bench,
    "models": models,
    "sets": sets,
    "serve": serve,
    "actions": actions,
}
EXAMPLES = """\
examples:

  tokenprune models qwen3_vl                                   # can my model be pruned?
  tokenprune explain cup.jpg "Where is the cup?" --model PATH  # which visual tokens are kept, and the answer
  tokenprune eval --model PATH --data DIR --keep-ratio 0.25    # what pruning costs in accuracy
  tokenprune serve --model PATH --keep-ratio 0.25              # vLLM's server, with fewer visual tokens

in Python:

  handle = tokenprune.patch(model, "fopru", keep_ratio=0.25)

shell completion, in bash or zsh:

  eval "$(register-python-argcomplete tokenprune)"
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in sys.argv, or in `arguments`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell that completes a command line
        import_module("argcomplete").autocomplete(parser)
    options = _parse(parser, words)
    if os.getcwd() not in sys.path:  # for --strategy my_module:MyStrategy; `python -m` puts it there too
        sys.path.append(os.getcwd())
    escape_unprintable()
    with plain_errors(options.command.EXTRA):
        options.command.run(options)


def build_parser() -> ArgumentParser:
    """Return the parser of all commands. The options it returns hold the command's module as `command`."""
    parser = script_parser("Prune the visual tokens of Hugging Face vision-language models, and measure what it costs.")
    parser.prog, parser.epilog = "tokenprune", EXAMPLES
    version = f"tokenprune {tokenprune.__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        text = inspect.getdoc(module.run) or ""
        command = commands.add_parser(
            name,
            help=text.splitlines()[0].removesuffix("."),
            description=text,
            formatter_class=Formatter,
            allow_abbrev=False,
        )
        module.add_options(command)
        command.set_defaults(command=module, parser=command)
    return parser


def _parse(parser: ArgumentParser, words: list[str]) -> Namespace:
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        parser.error(unknown("command", words[0], COMMANDS))
    passes_on = bool(words) and hasattr(COMMANDS.get(words[0]), "PASSES_ON")
    if passes_on and len(words) > 1 and not words[1].startswith("-"):
        words.insert(1, "--model")  # vLLM's own form: serve MODEL
    options, others = parser.parse_known_args(words or ["--help"])
    if passes_on:
        options.passed_on = others
    elif others:
        options.parser.error(unrecognized(options.parser, others))
    file = getattr(options, "settings", None)
    if file is None:
        return options
    command, *given = words  # argparse lets later options override earlier ones
    return parser.parse_args([command, *arguments_of(file, options.parser), *given])
