"""`tokenprune optimize`: search VFlowOpt's settings for a model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.search.objective import State

Dtype = Literal["float32", "bfloat16", "float16"]


def optimize(
    model: Annotated[
        str, typer.Option(help="A folder or a Hugging Face name.", metavar="PATH", show_default="the bundled model")
    ] = str(MODEL),
    data: Annotated[
        Path,
        typer.Option(
            help="Pictures and questions, as RefCOCO and VQAv2 are distributed.",
            metavar="DIR",
            show_default="the bundled scenes",
        ),
    ] = SCENES,
    split: Annotated[str, typer.Option(help="The split that questions are taken from. all: all but train.")] = "val",
    keep_ratio: Annotated[float, typer.Option(help="Average share of visual tokens kept, over the layers.")] = 0.1,
    trials: Annotated[int, typer.Option(min=1, help="Settings that are tried, the default ones included.")] = 50,
    samples: Annotated[int, typer.Option(min=1, help="Questions, drawn at random. No answers are read.")] = 30,
    state: Annotated[
        State, typer.Option(help="What is to stay near the unpruned model: the last prompt token's state, or the mean.")
    ] = "last_token",
    recycle: Annotated[bool, typer.Option(help="Merge dropped tokens, one for each grid cell.")] = True,
    progressive: Annotated[bool, typer.Option(help="Prune in the language model too.")] = True,
    layer: Annotated[
        int | None,
        typer.Option(help="Encoder layer of the map.", show_default="the one whose output the projector gets"),
    ] = None,
    as_released: Annotated[
        bool, typer.Option("--as-released", help="The map as the released code computes it, not as the paper says.")
    ] = False,
    dtype: Annotated[Dtype, typer.Option(help="Of the model.")] = "float32",
    seed: Annotated[int, typer.Option(help="Of the questions and of the search.")] = 0,
    output: Annotated[
        Path, typer.Option(help="The settings file. A plot and a journal to go on from are written beside it.")
    ] = Path("runs/settings.json"),
) -> None:
    """Search [bold]VFlowOpt[/bold]'s settings for a model, on a few unlabelled questions.

    Stopped or killed, the same command goes on where it was; with more --trials, a finished search does.

    The file that it writes is loaded by [bold]tokenprune.patch(model, "settings.json")[/bold].
    """
    from rich.console import Console

    from tokenprune.evals.models.loading import load_model, load_questions, public_name
    from tokenprune.evals.models.prompt_styles import style_of
    from tokenprune.evals.search import plot as search_plot
    from tokenprune.evals.search.calibration import calibration
    from tokenprune.evals.search.optimize import Names
    from tokenprune.evals.search.optimize import optimize as search
    from tokenprune.strategies.vflowopt import VFlowOpt

    base = VFlowOpt(
        keep_ratio=keep_ratio, recycle=recycle, progressive=progressive, layer=layer, as_released=as_released
    )
    asked = None if split == "all" else split
    loaded, processor = load_model(model, dtype)
    style = style_of(loaded.config, processor)
    drawn = calibration(load_questions(data, split=asked, style=style), samples, seed)
    record = search(
        loaded,
        processor,
        drawn,
        output,
        base=base,
        state=state,
        trials=trials,
        seed=seed,
        names=Names(public_name(model), public_name(str(data)), asked),
    )
    picture = output.with_suffix(".png")
    search_plot.draw(output, picture)
    objective = record["search"]["objective"]
    console = Console()
    console.print(
        f"Cosine to the unpruned model: {objective['default']:.5f} by default, {objective['best']:.5f} in trial "
        f"{objective['best_trial']} of {len(record['search']['trials'])}."
    )
    console.print(f'Written to {output}: tokenprune.patch(model, "{output}"). The search is drawn in {picture}.')
    console.print(f"tokenprune eval --strategy {output} --keep-ratio {keep_ratio}  # on other pictures")
