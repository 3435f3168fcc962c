"""`tokenprune bench`: what pruning saves in time and memory, and how close that comes to the ideal."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import a_path, at_least, not_empty

EXTRA = "evals"
SHAPE, NEW_TOKENS, MEMORY, SIDE = "llava-1.5-0.5b", 32, 24.0, 672
STRATEGIES = ["random", "fopru:mode=rank", "fopru:mode=row", "vflowopt"]


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        type=not_empty,
        metavar="PATH",
        help="model folder or Hugging Face name (default: random weights in the shape of --shape)",
    )
    parser.add_argument(
        "--shape",
        metavar="NAME",
        help="measure random weights in the shape of this model, since time and memory do not depend on weights: "
        "internvl3.5-1b, llava-1.5-0.5b, llava-1.5-7b, llava-onevision-0.5b, llava-onevision-7b or qwen2.5-vl-3b "
        f"(default: {SHAPE})",
    )
    parser.add_argument("--batch", nargs="+", type=at_least(1), default=[1], metavar="N", help="batch sizes")
    shared.add_option(parser, "keep_ratio", shared.keep_ratios(), default=[0.25])
    shared.add_option(parser, "strategy", shared.strategies(), default=STRATEGIES)
    parser.add_argument(
        "--rounds",
        type=at_least(0),
        default=5,
        metavar="N",
        help="number of runs of each case, alternating between cases; 0 only counts operations and memory",
    )
    shared.add_dtype(parser, "float32")
    parser.add_argument(
        "--attention",
        choices=("sdpa", "flash_attention_2", "eager"),
        default="sdpa",
        help="attention implementation of the model",
    )
    parser.add_argument(
        "--side",
        type=at_least(56),
        metavar="PIXELS",
        help=f"side of the square image, for models that accept several sizes (default: {SIDE}, or the only size)",
    )
    parser.add_argument(
        "--image",
        choices=("page", "table", "screen"),
        help="image to draw: a page of text, a table or a user interface (default: noise; with --model, plain grey)",
    )
    parser.add_argument(
        "--throughput", action="store_true", help="time `generate` instead, and find the largest batch that fits"
    )
    parser.add_argument(
        "--new-tokens",
        type=at_least(1),
        metavar="N",
        help=f"tokens to generate with --throughput (default: {NEW_TOKENS})",
    )
    parser.add_argument(
        "--memory",
        type=at_least(0.1, float),
        metavar="GB",
        help=f"memory that the largest batch of --throughput must fit into (default: {MEMORY:g})",
    )
    parser.add_argument(
        "--output",
        type=a_path,
        default=Path("runs/bench.json"),
        metavar="FILE",
        help="JSON file for the results, with a plot next to it; rounds are added to an existing file",
    )


def run(options: Namespace) -> None:
    """Measure time and memory: unpruned, with each strategy, and the ideal.

    The ideal is the unpatched model on a prompt that contains only as many visual tokens as the strategy keeps.

    Cases alternate in one process, so that other load on the machine affects all of them. Prints medians, and ratios
    within rounds with 95 % intervals, for the vision tower, selection, prefill, TTFT, decoding, peak memory, KV cache
    and operations. Also prints the number of visual tokens above which each strategy pays off.
    """
    from tokenprune.errors import SettingError
    from tokenprune.evals.bench.inputs import prompts
    from tokenprune.evals.bench.inputs.rendered import rendered
    from tokenprune.evals.bench.measuring import measure, measure_throughput
    from tokenprune.evals.bench.record import Record, about
    from tokenprune.evals.bench.timing.memory import keep_memory
    from tokenprune.evals.run.setups import pruned_setups

    if options.model is not None and options.shape is not None:
        raise SettingError("--shape has no effect with --model, whose weights are not random. Leave one of them out.")
    if not options.throughput and (options.new_tokens, options.memory) != (None, None):
        raise SettingError("--new-tokens and --memory have no effect without --throughput. Add it, or leave them out.")
    shape, n_new = options.shape or SHAPE, options.new_tokens or NEW_TOKENS
    Record.check_path(options.output)
    pruned = pruned_setups(options.strategy, options.keep_ratio)
    keeps_memory = keep_memory()
    side = _side(options, shape)
    model, processor, name = _model(options, shape)
    facts = {**about(model, name, options.attention, side), "keeps_memory": keeps_memory}
    shown = None
    if options.image is not None:
        facts["image"], shown = options.image, rendered(options.image, side)
    record = Record.open(options.output, facts)
    for size in options.batch:
        if options.model is None:
            inputs = prompts.random_prompt(model, size, side=side, shown=shown)
        else:
            inputs = prompts.question_prompt(model, processor, size, side=side, shown=shown)
        if options.throughput:
            measure_throughput(model, inputs, pruned, record, rounds=options.rounds, n_new=n_new)
        else:
            measure(model, inputs, pruned, record, rounds=options.rounds)
    record.write()
    _print(options, record, name)


def _model(options: Namespace, shape: str) -> tuple[Any, Any, str]:
    """Return the model, its processor (None for random weights) and its name in tables."""
    import torch

    from tokenprune.evals.bench.inputs.build import build
    from tokenprune.evals.bench.inputs.shapes import config_of
    from tokenprune.evals.models.loading import load_model, public_name

    with _missing_package(f"--attention {options.attention}"):
        if options.model is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            model = build(shape, config_of(shape), getattr(torch, options.dtype), device, options.attention)
            return model, None, f"random weights in the shape of {shape}"
        model, processor = load_model(options.model, options.dtype)
        model.set_attn_implementation(options.attention)
        return model, processor, public_name(options.model)


def _print(options: Namespace, record: Any, name: str) -> None:
    """Print the tables, and draw the plot if times were measured."""
    from tokenprune.evals.bench import plot, tables
    from tokenprune.evals.bench.figures import figures
    from tokenprune.evals.cli.output import console

    cases, screen = figures(record), console(200)
    if options.throughput:
        throughput = tables.throughput(record, cases, (options.memory or MEMORY) * 1e9)
        screen.print(tables.rich(throughput, "Medians of generate; peak memory without the weights"))
    else:
        screen.print(tables.rich(tables.costs(cases), "Medians; memory without the weights"))
    if any(case.ttft_to_unpruned is not None for case in cases):
        title = (
            "Ratios within rounds, with 95 % intervals, or the range of fewer than five rounds; the ideal is the "
            "unpatched model on an equally short prompt"
        )
        screen.print(tables.rich(tables.ratios(cases), title))
        drawing = options.output.with_suffix(".png")
        plot.draw(cases, drawing, name)
        screen.print(f"Plot: {drawing}.")
    screen.print(f"{tables.provenance(record)}\nEvery round is in {options.output}; the same command adds more.")


@contextmanager
def _missing_package(option: str) -> Iterator[None]:
    """Raise SettingError, naming the option, if transformers reports that a package it needs is not installed."""
    from tokenprune.errors import SettingError

    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):  # a package of our extras: `plain_errors` says what to install
            raise
        raise SettingError(f"{option}: {error}") from error


def _side(options: Namespace, shape: str) -> int:
    """Return the side of the image in pixels. Raises SettingError if --side was given for a model with one size."""
    from tokenprune.errors import SettingError
    from tokenprune.evals.bench.inputs.prompts import only_side, takes_sides
    from tokenprune.evals.bench.inputs.shapes import config_of
    from tokenprune.evals.models.loading import load_processor

    only = None if options.model is not None else only_side(config_of(shape))
    if options.side is None:
        return only or SIDE
    if only is not None or (options.model is not None and not takes_sides(load_processor(options.model)[1])):
        raise SettingError(
            f"--side {options.side} has no effect: {options.model or shape} resizes every image to the same size. "
            "Leave it out, or measure a model that takes several sizes, such as --shape qwen2.5-vl-3b."
        )
    return options.side
