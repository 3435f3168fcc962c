"""`tokenprune demo`: a table of accuracy, and every script of demos/, in a few minutes from a clone."""

from pathlib import Path
from typing import Annotated

import typer

from tokenprune.errors import DataError
from tokenprune.evals.models.bundled import DEMOS, MODEL, SETTINGS

STRATEGIES, KEEP_RATIOS = ["fopru:mode=rank,layer=-2", "visionzip:layer=-2"], [0.5, 0.25, 0.1]
#: The scripts that draw, and what they are called with beside --output.
DRAWING = {
    "compare_kept_tokens": ["--rounds", "3"],
    "grounding_gap": ["--limit", "20"],
    "large_image": [],
    "vflow_search": [str(SETTINGS / "searched_25.json")],
}


def demo(
    limit: Annotated[int, typer.Option(min=1, help="Questions of each task in the table, spread evenly.")] = 40,
    output: Annotated[Path, typer.Option(help="Where everything goes.", metavar="DIR")] = Path("demo_output"),
) -> None:
    """Show what pruning does to the bundled model: a table of accuracy, and the pictures of all demos.

    Needs a clone of the repository, no network and no GPU, and on two cores a few minutes. Stopped or killed, the same
    command goes on where it was.
    """
    import runpy

    from rich.console import Console

    from tokenprune.evals.report.terminal import table
    from tokenprune.evals.run.evaluate import evaluate

    if not (MODEL / "model.safetensors").is_file() or not DEMOS.is_dir():
        raise DataError(
            "the bundled model, its pictures and the demos are in a clone of the repository alone, nothing that pip "
            "installs has them. Type: make demo in a clone. With a model of your own, anywhere: "
            'tokenprune explain IMAGE "QUESTION" --model PATH'
        )
    console = Console(width=None if Console().is_terminal else 140)  # a pipe has no width; 80 would break the table

    def run(script: str, *options: str) -> None:
        console.rule(f"demos/{script}.py")
        runpy.run_path(str(DEMOS / f"{script}.py"))["main"](options)

    console.rule("accuracy")
    rows = evaluate(
        output=output / "eval",
        strategies=STRATEGIES,
        keep_ratios=KEEP_RATIOS,
        position_ids=["original"],
        baselines=["unpruned", "random"],
        limit=limit,
        console=console,
    )
    console.print(table(rows, "The bundled model on the bundled scenes"))
    run("patch_your_model", "--rounds", "3")
    for script, options in DRAWING.items():
        run(script, *options, "--output", str(output / f"{script}.png"))
    console.rule("done")
    console.print(f"Everything is in {output}. demos/README.md says what each picture shows.")
