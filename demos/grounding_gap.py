"""Draw how position IDs affect grounding: the boxes of one scene, and accuracy against the keep ratio.

After pruning, visual tokens keep their position IDs ("original", which GAP restores) or are renumbered ("compact", as
in most published code). The scene is the first that the unpruned model answers correctly. An interrupted run resumes.
The measured results, as lines of JSON, and the run with every answer are written next to the figure.

    python demos/grounding_gap.py                                        # the bundled model: less than three minutes
    python demos/grounding_gap.py --model PATH --data DIR --strategy visionzip --dtype bfloat16 --limit 200
"""

from collections.abc import Sequence

from _common import demo_parser
from transformers import AutoConfig, AutoProcessor

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import at_least
from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.dev.figures import gap as gap_figure
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage import results_io
from tokenprune.evals.storage.run_folder import RunFolder

TASKS = ["rec"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = demo_parser(__doc__, "grounding_gap.png")
    shared.add_option(parser, "data", shared.DATA)
    shared.add_option(parser, "strategy", shared.strategy(), default="fopru:layer=-2")
    shared.add_option(parser, "keep_ratio", shared.keep_ratios(), default=[0.75, 0.5, 0.25, 0.1])
    shared.add_dtype(parser)
    parser.add_argument(
        "--limit", type=at_least(1), default=40, metavar="N", help="number of questions to ask, evenly spaced"
    )
    options = parser.parse_args(arguments)
    run = RunFolder(options.output.with_suffix(""))
    rows = evaluate(
        options.model,
        output=run.path,
        strategies=[options.strategy],
        keep_ratios=options.keep_ratio,
        baselines=[UNPRUNED],
        tasks=TASKS,
        data=options.data,
        limit=options.limit,
        dtype=options.dtype,
    )
    style = style_of(AutoConfig.from_pretrained(options.model), AutoProcessor.from_pretrained(options.model))
    scene = gap_figure.Scene.first_correct(load_questions(options.data, TASKS, style=style), run.answers())
    gap_figure.draw(rows, scene, options.output)
    stored = options.output.with_suffix(".jsonl")
    results_io.write(stored, rows)
    print(f"Figure written to {options.output}, results to {stored}, every answer to {run.path}")


if __name__ == "__main__":
    with plain_errors():
        main()
