"""Print a table of accuracy on the bundled model, and run every demo.

Takes a few minutes on two cores, offline and without a GPU. An interrupted run resumes with the same command, which
`make demo` calls.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tokenprune.evals.arguments.parser import at_least, script_parser
from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.cli.output import console
from tokenprune.evals.models.bundled import PHOTOGRAPHS, SETTINGS
from tokenprune.evals.report.terminal import table
from tokenprune.evals.run.evaluate import evaluate

STRATEGIES, KEEP_RATIOS = ["fopru:layer=-2", "mosaic"], [0.25, 0.1]
#: The demos that print what they do with a tiny model whose weights are random.
PRINTING = ("block_diffusion", "robot_policy")
#: The demos that draw, and their arguments in addition to --output.
DRAWING = {
    "compare_kept_tokens": [],
    "grounding_gap": ["--limit", "20"],
    "large_image": [],
    "video_tokens": ["--frames", "4"],
    "vflow_search": [str(SETTINGS / "searched_25.json")],
}
#: A photograph, with a question that the model answers correctly, which `compare_kept_tokens` draws too.
PHOTOGRAPH = [
    *(str(PHOTOGRAPHS / "images" / "pig.jpg"), "where is the pig?"),
    *("--box", "102", "107", "394", "394"),
]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--limit", type=at_least(1), default=40, metavar="N", help="questions per task in the table, evenly spaced"
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), metavar="DIR", help="folder to write to")
    options = parser.parse_args(arguments)
    screen = console(140)

    def run(demo: str, *words: str) -> None:
        screen.rule(f"demos/{demo}.py")
        import_module(demo).main(words)

    screen.rule("accuracy")
    rows = evaluate(
        output=options.output / "eval",
        strategies=STRATEGIES,
        keep_ratios=KEEP_RATIOS,
        position_ids=["original"],
        baselines=["unpruned", "random", "downsample"],
        limit=options.limit,
        console=screen,
    )
    screen.print(table(rows, "The bundled model on the bundled scenes"))
    run("patch_your_model", "--rounds", "3")
    for demo in PRINTING:
        run(demo)
    for demo, words in DRAWING.items():
        run(demo, *words, "--output", str(options.output / f"{demo}.png"))
    run("compare_kept_tokens", *PHOTOGRAPH, "--output", str(options.output / "photograph.png"))
    screen.rule("done")
    screen.print(f"Everything is in {options.output}. demos/README.md explains each image.")


if __name__ == "__main__":
    with plain_errors("optimize,adapt"):
        main()
