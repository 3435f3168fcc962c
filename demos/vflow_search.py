"""Draw how VFlowOpt's settings were found: the value of every trial, and the visual tokens of each decoder layer.

Without a settings file it first runs a short search on the bundled model. An interrupted search resumes.

    tokenprune optimize --keep-ratio 0.25 --trials 50 --output runs/quarter.json
    python demos/vflow_search.py runs/quarter.json --output quarter.png
"""

from collections.abc import Sequence
from pathlib import Path

from _common import demo_parser

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import at_least
from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.search.calibration import draw_questions
from tokenprune.evals.search.optimize import Names, optimize
from tokenprune.evals.search.plot import draw
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt


def main(arguments: Sequence[str] | None = None) -> None:
    parser = demo_parser(__doc__, "vflow_search.png")
    parser.add_argument(
        "settings",
        nargs="?",
        type=Path,
        metavar="SETTINGS",
        help="file that `tokenprune optimize` wrote (default: run a search first)",
    )
    shared.add_calibration(parser, questions=8)
    shared.add_option(parser, "keep_ratio", shared.KEEP_RATIO, default=0.1)
    parser.add_argument("--trials", type=at_least(1), default=20, metavar="N", help="settings to try")
    options = parser.parse_args(arguments)
    settings = options.settings
    if settings is None:
        settings = options.output.with_suffix(".json")
        with allowing(options.image_root, options.max_image_pixels):
            questions, split = draw_questions(
                options.model, options.data, options.split, options.questions, options.seed, print
            )
        model, processor = load_model(options.model)
        optimize(
            model,
            processor,
            questions,
            settings,
            base=VFlowOpt(keep_ratio=options.keep_ratio),
            trials=options.trials,
            seed=options.seed,
            names=Names(public_name(options.model), options.data.name, split),
        )
    draw(settings, options.output)
    print(f"Written to {options.output}")


if __name__ == "__main__":
    with plain_errors("optimize"):
        main()
