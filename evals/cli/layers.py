"""`tokenprune layers`: find the decoder layers that a model can do without."""

from pathlib import Path
from typing import Annotated

import typer

from tokenprune.evals.cli.optimize import Dtype
from tokenprune.evals.models.bundled import MODEL, SCENES


def layers(
    skip: Annotated[int, typer.Option(min=0, help="How many layers to skip.")] = 1,
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
    split: Annotated[
        str, typer.Option(help="The split that questions are taken from; do not evaluate on it. all: all but train.")
    ] = "val",
    samples: Annotated[int, typer.Option(min=1, help="Questions, drawn at random. No answers are read.")] = 30,
    dtype: Annotated[Dtype, typer.Option(help="Of the model.")] = "float32",
    seed: Annotated[int, typer.Option(help="Of the questions.")] = 0,
) -> None:
    """Rank decoder layers by how little they change what enters them, on a few unlabelled questions.

    The layers that it prints are for [bold]PAR(skip=...)[/bold], which does not execute them.
    """
    from rich.console import Console
    from rich.table import Table

    from tokenprune.evals.models.loading import load_model, load_questions
    from tokenprune.evals.models.prompt_styles import style_of
    from tokenprune.evals.search.calibration import calibration
    from tokenprune.evals.search.layers import layer_changes, least_changing

    loaded, processor = load_model(model, dtype)
    asked = load_questions(data, split=None if split == "all" else split, style=style_of(loaded.config, processor))
    changes = layer_changes(loaded, processor, calibration(asked, samples, seed))
    skipped = least_changing(changes, skip)
    table = Table("layer", "1 - cosine", "", title=f"Mean change over {samples} questions")
    for number, change in enumerate(changes):
        table.add_row(str(number), f"{change:.4f}", "skipped" if number in skipped else "")
    console = Console()
    console.print(table)
    console.print(f"tokenprune.patch(model, PAR(keep_ratio=0.25, skip={skipped}))")
