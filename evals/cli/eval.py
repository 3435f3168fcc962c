"""`tokenprune eval`: what pruning costs, in accuracy, and saves, in visual tokens and time."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tokenprune.evals.cli.completion import strategies as complete_strategies
from tokenprune.evals.cli.nargs import options_file
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.run.setups import DEFAULT_KEEP_RATIOS, DEFAULT_STRATEGIES, POSITION_IDS

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
NONE = "none"

STRATEGIES, KEEP_RATIOS, KINDS = list[str](DEFAULT_STRATEGIES), list(DEFAULT_KEEP_RATIOS), list[str](POSITION_IDS)


def eval_(
    model: Annotated[
        str, typer.Option(help="A folder or a Hugging Face name.", metavar="PATH", show_default="the bundled model")
    ] = str(MODEL),
    strategy: Annotated[
        list[str],
        typer.Option(
            help="One or several, with settings: fopru:mode=row. A strategy's settings file: its path. none: only the "
            "baselines.",
            metavar="NAME...",
            autocompletion=complete_strategies,
        ),
    ] = STRATEGIES,
    keep_ratio: Annotated[
        list[float], typer.Option(help="Shares of visual tokens kept, one or several.", metavar="RATIO...")
    ] = KEEP_RATIOS,
    position_ids: Annotated[list[str], typer.Option(help="original, compact or both.", metavar="KIND...")] = KINDS,
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            help="What runs beside the strategies: unpruned, random, downsample, or none.",
            metavar="NAME...",
            show_default="all that the model can",
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="One or several.", metavar="NAME...", show_default="those whose files are there"),
    ] = None,
    data: Annotated[
        Path,
        typer.Option(
            help="The tasks' files as they are published, or a folder of them for each task, called as the task.",
            metavar="DIR",
            show_default="the bundled scenes",
        ),
    ] = SCENES,
    split: Annotated[str | None, typer.Option(help="As the sets call it.", show_default="all but train")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions of each task, spread evenly.", show_default="all")
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option(help="Of the model. auto: that of its weights; float16 becomes float32 on a CPU.")
    ] = "auto",
    device_map: Annotated[
        str | None, typer.Option(help="auto spreads a model that is too large for one device over all.")
    ] = None,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="The most tokens in a batch, unpruned and with padding.")
    ] = 4096,
    on_error: Annotated[
        Literal["stop", "record"],
        typer.Option(help="What a question that cannot be asked does. Recorded, it is counted apart, never as wrong."),
    ] = "stop",
    settings: Annotated[
        Path | None,
        typer.Option(
            callback=options_file,
            is_eager=True,
            help="Any of these options in a TOML or JSON file. Those of the command line go before.",
            metavar="FILE",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="The run's folder: settings, every answer, rows. The same command goes on with it.")
    ] = Path("runs/eval"),
) -> None:
    """Ask a model the questions of published sets, unpruned and under every strategy.

    Prints accuracy with 95 % intervals, visual tokens and KV cache. Stopped or killed, the same command goes on where
    it was. [bold]accelerate launch --num_processes 2 -m tokenprune.evals ...[/bold] shares the questions among devices
    and machines and gives the same answers. [bold]tokenprune report runs/*[/bold] compares and draws.
    """
    from rich.console import Console

    from tokenprune.evals.report.terminal import further, table
    from tokenprune.evals.run.evaluate import evaluate
    from tokenprune.evals.run.processes import processes

    console = Console(width=None if Console().is_terminal else 1000)  # a pipe has no width; 80 would break the table
    rows = evaluate(
        model,
        output=output,
        strategies=[name for name in strategy if name != NONE],
        keep_ratios=keep_ratio,
        position_ids=position_ids,
        baselines=None if baselines is None else [name for name in baselines if name != NONE],
        tasks=tasks,
        data=data,
        split=split,
        limit=limit,
        dtype=dtype,
        device_map=device_map,
        batch_tokens=batch_tokens,
        on_error=on_error,
        console=console,
    )
    if processes().is_first:
        console.print(table(rows, f"{rows[0].model} on {rows[0].scenes}"))
        if (beside := further(rows)) is not None:
            console.print(beside)
        console.print(f"Every answer is in {output}.\ntokenprune report {output}  # paired differences, plots, a page")
