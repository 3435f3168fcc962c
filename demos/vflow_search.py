"""Draw how VFlowOpt's settings were found: what every trial was worth, and the visual tokens of each decoder layer.

Without arguments the bundled model is searched first, shortly; the search goes on where it was if it is stopped.

    tokenprune optimize --keep-ratio 0.25 --trials 50 --output runs/quarter.json
    python demos/vflow_search.py runs/quarter.json --output quarter.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.loading import load_model, load_questions, public_name
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.search.calibration import calibration
from tokenprune.evals.search.optimize import Names, optimize
from tokenprune.evals.search.plot import draw
from tokenprune.strategies.vflowopt import VFlowOpt

SPLIT = "val"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    settings = options.settings
    if settings is None:
        settings = options.output.with_suffix(".json")
        model, processor = load_model(options.model)
        style = style_of(model.config, processor)
        optimize(
            model,
            processor,
            calibration(load_questions(options.data, split=SPLIT, style=style), options.samples, seed=0),
            settings,
            base=VFlowOpt(keep_ratio=options.keep_ratio),
            trials=options.trials,
            names=Names(public_name(options.model), options.data.name, SPLIT),
        )
    draw(settings, options.output)
    print(f"Written to {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="?", type=Path, help="what `tokenprune optimize` wrote")
    parser.add_argument("--model", default=str(MODEL), help="a folder or a Hugging Face name")
    parser.add_argument("--data", type=Path, default=SCENES, help="pictures and questions")
    parser.add_argument("--keep-ratio", type=float, default=0.1)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("demo_output/vflow_search.png"))
    return parser


if __name__ == "__main__":
    main()
