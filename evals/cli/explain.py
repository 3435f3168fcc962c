"""`tokenprune explain`: what each strategy makes of one picture and one question."""

from pathlib import Path
from typing import Annotated

import typer

from tokenprune.evals.cli.completion import strategies as complete_strategies
from tokenprune.evals.cli.eval import Dtype
from tokenprune.evals.models.bundled import MODEL
from tokenprune.evals.run.setups import DEFAULT_KEEP_RATIOS, EXPLAINED_STRATEGIES, POSITION_IDS

STRATEGIES, KEEP_RATIOS, KINDS = list[str](EXPLAINED_STRATEGIES), list(DEFAULT_KEEP_RATIOS), ["original"]


def explain(
    image: Annotated[Path, typer.Argument(help="A picture.", exists=True, dir_okay=False, readable=True)],
    question: Annotated[str, typer.Argument(help='What to ask about it, as "Where is the cup?"')],
    strategy: Annotated[
        list[str],
        typer.Option(
            help="One or several, with settings: fopru:mode=row. A strategy's settings file: its path.",
            metavar="NAME...",
            autocompletion=complete_strategies,
        ),
    ] = STRATEGIES,
    keep_ratio: Annotated[
        list[float], typer.Option(help="Shares of visual tokens kept, one or several.", metavar="RATIO...")
    ] = KEEP_RATIOS,
    position_ids: Annotated[
        list[str],
        typer.Option(
            help="original, compact or both.", metavar="KIND...", autocompletion=lambda: list[str](POSITION_IDS)
        ),
    ] = KINDS,
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(help="The true box in pixels, for a question about a place.", metavar="X1 Y1 X2 Y2"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A folder or a Hugging Face name.", metavar="PATH", show_default="the bundled model")
    ] = str(MODEL),
    dtype: Annotated[
        Dtype, typer.Option(help="Of the model. auto: that of its weights; float16 becomes float32 on a CPU.")
    ] = "auto",
    rounds: Annotated[
        int, typer.Option(min=0, help="Of the measurement of time, each of all setups in turn. 0: none.")
    ] = 3,
    output: Annotated[
        Path | None, typer.Option(help="Draw what was kept and why into this PNG file.", metavar="FILE")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write a page with a slider over the keep ratio; every stop of it is asked, with both position IDs.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Ask one question about one picture, unpruned and under every strategy.

    Prints the answers, the visual tokens that were kept, and what that saved. IMAGE and QUESTION come first:

    [bold]tokenprune explain cup.jpg "Where is the cup?" --strategy grid fopru --keep-ratio 0.25 --output cup.png[/bold]
    """
    from rich.console import Console

    from tokenprune.evals.explain import page as kept_tokens_page
    from tokenprune.evals.explain import sheet as kept_tokens
    from tokenprune.evals.explain.explain import explain as explained
    from tokenprune.evals.explain.table import table
    from tokenprune.evals.models.loading import load_model, public_name
    from tokenprune.evals.run.setups import make_setups
    from tokenprune.evals.tasks._read.images import open_image

    console = Console(width=None if Console().is_terminal else 140)
    picture = open_image(image)
    shown = make_setups(strategy, keep_ratio, position_ids, baselines=[])
    asked = shown if html is None else kept_tokens_page.slider(strategy, keep_ratio)
    loaded, processor = load_model(model, dtype)
    explanation = explained(
        loaded, processor, picture, question, asked, true_box=box, name=public_name(model), rounds=rounds
    )
    console.print(table(explanation.only(shown)))
    if output is not None:
        kept_tokens.draw(explanation.only(shown), output)
        console.print(f"Written to {output}")
    if html is not None:
        kept_tokens_page.write(explanation, html)
        console.print(f"Written to {html}")
