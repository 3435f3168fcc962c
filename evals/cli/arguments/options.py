"""Options that several commands and demos share, each described once."""

from __future__ import annotations

from argparse import Action, ArgumentError, ArgumentParser, Namespace
from collections.abc import Sequence
from math import isfinite
from typing import Any

from tokenprune.evals.cli.arguments.completion import complete_strategy
from tokenprune.evals.cli.arguments.parser import a_path, at_least, existing_file, fraction, not_empty, number
from tokenprune.evals.defaults import (
    ALL_SPLITS,
    BATCH_TOKENS,
    CALIBRATION_SPLIT,
    DEFAULT_KEEP_RATIOS,
    DEFAULT_STRATEGY,
    FRAMES,
    MAX_IMAGE_PIXELS,
    POSITION_IDS,
)
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.dtypes import DTYPES

FORM = (
    "a name with settings (fopru:mode=row,layer=-2), your own class (my_module:MyStrategy,layer=2), several in "
    "sequence (pixelprune+fopru), or a settings file"
)


class _StoreBox(Action):
    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        left, top, right, bottom = values
        if not (all(map(isfinite, values)) and left < right and top < bottom):
            raise ArgumentError(
                self, f"{' '.join(f'{one:g}' for one in values)} is not a box: X1 must be below X2, and Y1 below Y2"
            )
        setattr(namespace, self.dest, (left, top, right, bottom))


def add_model(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        type=not_empty,
        default=str(MODEL),
        metavar="PATH",
        help="model folder or Hugging Face name (default: in a clone, the bundled model)",
    )


def add_required_model(parser: ArgumentParser, what: str = "model folder or Hugging Face name", **more: Any) -> None:
    """Add --model to a command for which a forgotten --model must not mean the bundled model."""
    parser.add_argument("--model", type=not_empty, required=True, metavar="PATH", help=what, **more)


def add_data(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=a_path,
        default=SCENES,
        metavar="DIR",
        help="folder with your own questions.jsonl, with the files of a published set, or with one folder per task, "
        "named after the task (default: in a clone, the bundled scenes)",
    )


def add_max_image_pixels(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--max-image-pixels",
        type=at_least(1),
        default=MAX_IMAGE_PIXELS,
        metavar="N",
        help="refuse images with more pixels: a small file can claim any size and exhaust memory",
    )


def add_frames(parser: ArgumentParser, default: int | None = FRAMES) -> None:
    parser.add_argument(
        "--frames",
        type=at_least(1),
        default=default,
        metavar="N",
        help="frames to read from a video, evenly spaced; a model that takes no videos gets them as images "
        f"(default: {FRAMES})",
    )


def add_allowed(parser: ArgumentParser) -> None:
    """Add the options that limit what a data set can make a command read."""
    parser.add_argument(
        "--image-root",
        nargs="+",
        type=a_path,
        default=[],
        metavar="DIR",
        help="folders outside the data folder that images may be read from (default: none)",
    )
    add_max_image_pixels(parser)


def add_questions(parser: ArgumentParser, use: str) -> None:
    """Add the options that say which questions a command reads. `use` is the verb for what it does with tasks."""
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="NAME",
        help=f"tasks to {use} (default: your own questions alone, if there are any; otherwise every folder named after "
        "a task); required for a set whose files are directly in --data",
    )
    add_data(parser)
    add_allowed(parser)
    parser.add_argument(
        "--split",
        type=str if use == "train on" else lambda text: None if text == ALL_SPLITS else text,
        metavar="NAME",
        help="split, by its name in the data set "
        + ("(default: train, if there is one, otherwise all)" if use == "train on" else "(default: all but train)"),
    )
    parser.add_argument(
        "--limit", type=at_least(1), metavar="N", help="questions per task, evenly spaced (default: all)"
    )


def add_dtype(parser: ArgumentParser, default: str = "auto") -> None:
    """`auto` is offered only where it is the default; elsewhere results should not depend on how weights are stored."""
    if default == "auto":
        parser.add_argument(
            "--dtype",
            choices=DTYPES,
            default=default,
            help="data type of the model; auto: the checkpoint's, but float32 on a CPU that is slow in that type "
            "(every CPU in float16, many in bfloat16)",
        )
    else:
        parser.add_argument("--dtype", choices=DTYPES[1:], default=default, help="data type of the model")


def add_batch_tokens(parser: ArgumentParser, use: str = "in a batch") -> None:
    parser.add_argument(
        "--batch-tokens",
        type=at_least(1),
        metavar="N",
        help=f"maximum number of tokens {use}, before pruning and with padding (default: {BATCH_TOKENS})",
    )


def add_strategies(parser: ArgumentParser, default: Sequence[str] | None, also: str = "") -> None:
    option: Any = parser.add_argument(
        "--strategy",
        nargs="+",
        default=None if default is None else list(default),
        metavar="NAME",
        help=f"one or more of: {FORM}{also}",
    )
    option.completer = complete_strategy


def add_strategy(parser: ArgumentParser, default: str | None = DEFAULT_STRATEGY, also: str = "") -> None:
    option: Any = parser.add_argument("--strategy", default=default, metavar="NAME", help=FORM + also)
    option.completer = complete_strategy


def add_keep_ratios(
    parser: ArgumentParser, default: Sequence[float] | None = DEFAULT_KEEP_RATIOS, also: str = ""
) -> None:
    parser.add_argument(
        "--keep-ratio",
        nargs="+",
        type=fraction,
        default=None if default is None else list(default),
        metavar="RATIO",
        help="fractions of the visual tokens to keep; every strategy runs at each of them, a settings file at its own"
        + also,
    )


def add_keep_ratio(parser: ArgumentParser, default: float, what: str = "fraction of the visual tokens to keep") -> None:
    parser.add_argument("--keep-ratio", type=fraction, default=default, metavar="RATIO", help=what)


def add_position_ids(parser: ArgumentParser, default: Sequence[str] | None, also: str = "") -> None:
    parser.add_argument(
        "--position-ids",
        nargs="+",
        choices=POSITION_IDS,
        default=None if default is None else list(default),
        metavar="KIND",
        help=f"position IDs of the kept tokens: original, compact (renumbered), or both{also}",
    )


def add_image(parser: ArgumentParser, bundled: str | None = None) -> None:
    """Add IMAGE and QUESTION. Both are optional if `bundled` is given: it says what is used instead of IMAGE."""
    if bundled is None:
        parser.add_argument("image", type=existing_file, metavar="IMAGE", help="image or video file")
        ask = 'what to ask about it, such as "Where is the cup?"'
        parser.add_argument("question", type=not_empty, metavar="QUESTION", help=ask)
    else:
        parser.add_argument(
            "image", nargs="?", type=existing_file, metavar="IMAGE", help=f"image file (default: {bundled})"
        )
        parser.add_argument(
            "question", nargs="?", default="What is this?", metavar="QUESTION", help="what to ask about IMAGE"
        )


def add_box(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--box",
        action=_StoreBox,
        nargs=4,
        type=number,
        metavar=("X1", "Y1", "X2", "Y2"),
        help="ground-truth box in pixels, for a question that asks for a box",
    )


def add_rounds(parser: ArgumentParser, default: int, least: int = 0) -> None:
    skip = "; 0 skips the timing" if least == 0 else ""
    parser.add_argument(
        "--rounds",
        type=at_least(least),
        default=default,
        metavar="N",
        help=f"number of timed runs of each setup, alternating between setups{skip}",
    )


def add_seed(parser: ArgumentParser) -> None:
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="random seed")


def add_calibration(parser: ArgumentParser, questions: int = 30) -> None:
    """Add the options that say which questions settings are searched on."""
    add_data(parser)
    add_allowed(parser)
    parser.add_argument(
        "--split",
        metavar="NAME",
        help=f"split to draw questions from, which you must not evaluate on later; {ALL_SPLITS}: every split except "
        f"train (default: {CALIBRATION_SPLIT}; {ALL_SPLITS} if the data set has no splits)",
    )
    parser.add_argument(
        "--questions",
        type=at_least(1),
        default=questions,
        metavar="N",
        help="number of questions to draw at random; their labels are not read",
    )
    add_seed(parser)
