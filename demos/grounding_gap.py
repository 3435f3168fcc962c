"""Draw what position IDs are to grounding: the boxes of one scene, and accuracy against the keep ratio, in one figure.

Kept visual tokens keep their own position IDs ("original", which GAP restores), or are numbered anew ("compact", as
most published code does). The scene is the first that the unpruned model answers right. A run that was stopped goes
on where it was. Beside the figure are the measured rows, as lines of JSON, and the run with every answer.

    python demos/grounding_gap.py                                        # the bundled model: less than three minutes
    python demos/grounding_gap.py --model PATH --data DIR --strategy visionzip --dtype bfloat16 --limit 200
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoConfig, AutoProcessor

from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.dev.figures import gap as gap_figure
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.loading import load_tasks
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run import results_io
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.run_folder import RunFolder
from tokenprune.evals.run.setups import UNPRUNED

TASKS = ["rec"]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
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
    scene = gap_figure.Scene.telling(load_tasks(options.data, TASKS, style=style), run.answers())
    gap_figure.draw(rows, scene, options.output)
    stored = options.output.with_suffix(".jsonl")
    stored.write_text("".join(f"{results_io.to_line(row)}\n" for row in rows), encoding="utf-8")
    print(f"Written to {options.output}, its rows to {stored}, every answer to {run.path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODEL), help="a folder or a Hugging Face name")
    parser.add_argument("--data", type=Path, default=SCENES, help="a REC set, as RefCOCO is distributed")
    parser.add_argument("--strategy", default="fopru:layer=-2", help="with settings: fopru:mode=row")
    parser.add_argument("--keep-ratio", type=float, nargs="+", default=[0.75, 0.5, 0.25, 0.1], metavar="RATIO")
    parser.add_argument("--limit", type=int, default=40, help="how many questions, spread evenly")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--output", type=Path, default=Path("demo_output/grounding_gap.png"))
    return parser


if __name__ == "__main__":
    with plain_errors():
        main()
