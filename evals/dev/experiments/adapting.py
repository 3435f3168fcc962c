"""What an adapter gains: the bundled model before and after `tokenprune adapt`, on scenes it was not trained on.

    python -m tokenprune.evals.dev.experiments.adapting --sources SOURCES --output runs/adapting --rows FILE

draws scenes like those that the bundled model was trained on (SOURCES is the folder that its training filled; held-out
backgrounds and files do not occur in them), trains an adapter on them and merges it. It then evaluates the model on the
bundled scenes with and without the adapter, unpruned and at each keep ratio. `--no-labels` distils. A killed run
resumes with the same command.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from tqdm import tqdm

from tokenprune.evals.adapt.adapt import adapt
from tokenprune.evals.adapt.record import IDENTITY
from tokenprune.evals.arguments.parser import script_parser
from tokenprune.evals.dev.figures.adapted import STRATEGY
from tokenprune.evals.dev.tables.accuracy.adapted import ADAPTED
from tokenprune.evals.dev.train.release.choose import draw_set
from tokenprune.evals.dev.train.release.plans import KINDS, REC, SQUARE, SetPlan
from tokenprune.evals.dev.train.release.write import SetFiles
from tokenprune.evals.dev.train.scenes.assets import load_assets
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage import files, results_io
from tokenprune.evals.storage.results import TaskResult

KEEP_RATIOS = (0.25, 0.1)
TRAINING = "train"
SEED = 1
#: The file that is written last, so that a set without it is incomplete.
LAST = "annotations.json"


def measure(options: Namespace) -> list[TaskResult]:
    """Return the rows without the adapter, then those with it, in which the model is called "adapted"."""
    scenes = options.output / f"{options.scenes} scenes"
    if not (scenes / LAST).is_file():
        write_scenes(options.sources, scenes, options.scenes)
    adapted = adapt(
        options.model,
        data=scenes,
        split=TRAINING,
        output=options.output / "adapted",
        strategy=options.strategy,
        keep_ratio=min(options.keep_ratio),
        up_to=options.up_to,
        whole=options.whole,
        labels=options.labels,
        steps=options.steps,
        batch=options.batch,
        rank=options.rank,
        learning_rate=options.learning_rate,
        dtype=options.dtype,
    )
    rows = []
    for name, title in (("before", public_name(options.model)), ("after", ADAPTED)):
        model, processor = load_model(options.model, "float32")
        if title == ADAPTED:
            model = cast(Any, PeftModel.from_pretrained(model, str(adapted.adapter))).merge_and_unload()
        model.config._name_or_path = title  # the name in the rows
        rows += evaluate(
            (model.eval(), processor),
            output=options.output / name,
            strategies=[options.strategy],
            keep_ratios=options.keep_ratio,
            position_ids=["original"],
            baselines=["unpruned"],
            data=options.data,
            limit=options.limit,
            apart_from=options.apart_from,
        )
    return rows


def write_scenes(sources: Path, output: Path, number: int) -> None:
    """Write a set of scenes that training may have seen, without held-out things and backgrounds."""
    assets = load_assets(sources, held_out_things=False, held_out_backgrounds=False)
    plan = SetPlan("adapting", {TRAINING: number}, SQUARE, vqa=KINDS, asked=4, rec=REC)
    files = SetFiles(output, "tokenprune adapting: cut-outs on backgrounds that training saw")
    for asked in tqdm(draw_set(plan, TRAINING, assets, SEED), total=number, desc=TRAINING):
        files.add(asked, TRAINING)
    files.write()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--sources", type=Path, required=True, metavar="DIR", help="folder that the training has filled"
    )
    parser.add_argument("--scenes", type=int, default=2000, metavar="N", help="number of scenes to draw")
    parser.add_argument("--model", default=str(MODEL), metavar="PATH", help="model folder")
    parser.add_argument("--data", type=Path, default=SCENES, metavar="DIR", help="evaluation set")
    parser.add_argument("--strategy", default=STRATEGY, metavar="NAME", help="strategy for training and evaluation")
    parser.add_argument(
        "--keep-ratio",
        nargs="+",
        type=float,
        default=list(KEEP_RATIOS),
        metavar="R",
        help="keep ratios of the evaluation",
    )
    parser.add_argument("--up-to", type=float, default=0.5, metavar="R", help="highest keep ratio in training")
    parser.add_argument(
        "--whole", type=float, default=0.25, metavar="SHARE", help="share of training steps without pruning"
    )
    parser.add_argument("--no-labels", action="store_false", dest="labels", help="distil from the unpruned model")
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="training steps")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images per forward pass in training")
    parser.add_argument("--rank", type=int, default=16, metavar="N", help="LoRA rank")
    parser.add_argument("--learning-rate", type=float, default=2e-4, metavar="RATE", help="peak learning rate")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("bfloat16", "float32"),
        help="data type in training; the evaluation uses float32",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="questions per task in the evaluation (default: all)")
    parser.add_argument("--apart-from", nargs="+", default=(), metavar="FILE", help="as in `tokenprune eval`")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for scenes, adapter and runs")
    parser.add_argument(
        "--rows",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write the rows to, as JSON lines; those with the adapter hold what identifies its training",
    )
    options = parser.parse_args(arguments)
    rows = measure(options)
    training = {"training": json.loads((options.output / "adapted" / IDENTITY).read_text(encoding="utf-8"))}
    lines = [json.loads(results_io.to_line(row)) | (training if row.model == ADAPTED else {}) for row in rows]
    files.replace(options.rows, "".join(f"{json.dumps(line)}\n" for line in lines))
    unpruned = {row.task: row.accuracy for row in rows if row.strategy == "unpruned" and row.model != ADAPTED}
    for row in rows:
        print(
            f"{row.model}, {row.strategy} at {row.keep_ratio:g}: {row.task} {row.accuracy:.1%} of questions; "
            f"unpruned and without the adapter {unpruned[row.task]:.1%}"
        )


if __name__ == "__main__":
    main()
