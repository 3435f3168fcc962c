"""`tokenprune bench`: what pruning saves in time and memory, and how near that comes to what can be saved."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tokenprune.evals.cli.completion import strategies as complete_strategies

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "flash_attention_2", "eager"]
DEFAULT_SHAPE = "llava-1.5-0.5b"
STRATEGIES = ["random", "fopru:mode=rank", "fopru:mode=row", "vflowopt"]


def bench(
    model: Annotated[
        str | None, typer.Option(help="A folder or a Hugging Face name, instead of a shape.", metavar="PATH")
    ] = None,
    shape: Annotated[
        str,
        typer.Option(
            help="A model of this shape with random weights: llava-1.5-0.5b, llava-1.5-7b, llava-onevision-0.5b, "
            "llava-onevision-7b or qwen2.5-vl-3b. Time and memory do not depend on the weights.",
            metavar="NAME",
        ),
    ] = DEFAULT_SHAPE,
    batch: Annotated[list[int], typer.Option(min=1, help="Batch sizes, one or several.", metavar="N...")] = [1],  # noqa: B006
    keep_ratio: Annotated[
        list[float], typer.Option(help="Shares of visual tokens kept, one or several.", metavar="RATIO...")
    ] = [0.25],  # noqa: B006
    strategy: Annotated[
        list[str],
        typer.Option(
            help="One or several, with settings: fopru:mode=row.",
            metavar="NAME...",
            autocompletion=complete_strategies,
        ),
    ] = STRATEGIES,
    rounds: Annotated[
        int, typer.Option(min=0, help="How often each is run, in turn. 0 counts operations and memory only.")
    ] = 5,
    dtype: Annotated[Dtype, typer.Option(help="Of the model.")] = "float32",
    attention: Annotated[Attention, typer.Option(help="Of the model.")] = "sdpa",
    side: Annotated[
        int, typer.Option(min=56, help="Pixels of the square picture, for models that take any size.", metavar="PIXELS")
    ] = 672,
    throughput: Annotated[
        bool, typer.Option("--throughput", help="Time generate instead, and find the largest batch.")
    ] = False,
    new_tokens: Annotated[int, typer.Option(min=1, help="What generate answers, with --throughput.")] = 32,
    memory: Annotated[float, typer.Option(min=0.1, help="GB that the largest batch is to fit into.")] = 24.0,
    output: Annotated[
        Path,
        typer.Option(help="The results, JSON; a plot is written beside it. A file that is there gets more rounds."),
    ] = Path("runs/bench.json"),
) -> None:
    """Compare the unpruned model, strategies, and the ideal: the unpatched model on a prompt that was that short from
    the start.

    They are run in turn in one process, so that whatever else the machine does hits all alike. Prints medians, and
    ratios within rounds with 95 % intervals: vision tower, selection, prefill, TTFT, decoding, peak memory, KV cache,
    operations; and from how many visual tokens on a strategy pays.
    """
    import torch
    from rich.console import Console

    from tokenprune.evals.bench import plot, prompts, tables
    from tokenprune.evals.bench.build import build
    from tokenprune.evals.bench.figures import figures
    from tokenprune.evals.bench.measuring import measure, measure_throughput
    from tokenprune.evals.bench.memory import keep_memory
    from tokenprune.evals.bench.record import Record, about
    from tokenprune.evals.models.loading import load_model, public_name
    from tokenprune.evals.run.setups import Pruned, make_setups

    pruned = [one for one in make_setups(strategy, keep_ratio, ["original"], baselines=()) if isinstance(one, Pruned)]
    processor, keeps_memory = None, keep_memory()
    if model is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        loaded = build(shape, getattr(torch, dtype), device, attention)
    else:
        loaded, processor = load_model(model, dtype)
        loaded.set_attn_implementation(attention)
    name = f"random weights in the shape of {shape}" if model is None else public_name(model)
    record = Record.begun(output, {**about(loaded, name, attention, side), "keeps_memory": keeps_memory})
    for size in batch:
        if model is None:
            inputs = prompts.random_prompt(loaded, size, side=side)
        else:
            inputs = prompts.asked_prompt(loaded, processor, size, side=side)
        if throughput:
            measure_throughput(loaded, inputs, pruned, record, rounds=rounds, n_new=new_tokens)
        else:
            measure(loaded, inputs, pruned, record, rounds=rounds)
    record.write()
    found = figures(record)
    console = Console(width=None if Console().is_terminal else 200)  # a pipe has no width; 80 would break the tables
    if throughput:
        console.print(tables.rich(tables.throughput(record, found, memory * 1e9), "generate"))
    else:
        console.print(tables.rich(tables.costs(found), "Medians; memory beside the weights"))
    if any(one.ttft_to_unpruned is not None for one in found):
        title = (
            "Ratios within rounds, with 95 % interval; 1 to the ideal is the same model on a prompt that was that short"
        )
        console.print(tables.rich(tables.ratios(found), title))
        picture = output.with_suffix(".png")
        plot.draw(found, picture, name)
        console.print(f"Drawn in {picture}.")
    console.print(f"{tables.provenance(record)}\nEvery round is in {output}; the same command adds more.")
