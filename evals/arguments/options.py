"""Options that several commands and demos share, each described once: as metadata of a settings class's field, and as a
function that adds it to a parser."""

from __future__ import annotations

from argparse import Action, ArgumentError, ArgumentParser, Namespace
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from tokenprune.evals.arguments.completion import complete_strategy
from tokenprune.evals.arguments.fields import add_option
from tokenprune.evals.arguments.parser import a_path, at_least, count, existing_file, fraction, not_empty, number
from tokenprune.evals.defaults import (
    ALL_SPLITS,
    BATCH_TOKENS,
    CALIBRATION_SPLIT,
    FRAMES,
    MAX_IMAGE_PIXELS,
    POSITION_IDS,
)
from tokenprune.evals.models import bundled
from tokenprune.evals.models.dtypes import DTYPES

FORM = (
    "a name with settings (fopru:mode=row,layer=-2), your own class (my_module:MyStrategy,layer=2), several in "
    "sequence (pixelprune+fopru), or a settings file"
)
#: A folder or a Hugging Face name; or both of a loaded model and its processor.
Model: TypeAlias = str | PathLike[str] | tuple[Any, Any]
#: What describes an option, see `tokenprune.evals.arguments.fields`.
Metadata = dict[str, Any]

COUNT: Metadata = {"type": count, "metavar": "N"}
MODEL: Metadata = {
    "type": not_empty,
    "default": str(bundled.MODEL),
    "metavar": "PATH",
    "help": "model folder or Hugging Face name (default: in a clone, the bundled model)",
}
DATA: Metadata = {
    "type": a_path,
    "default": bundled.SCENES,
    "metavar": "DIR",
    "help": "folder with your own questions.jsonl, with the files of a published set, or with one folder per task, "
    "named after the task (default: in a clone, the bundled scenes)",
}
IMAGE_ROOTS: Metadata = {
    "name": "--image-root",
    "nargs": "+",
    "type": a_path,
    "metavar": "DIR",
    "help": "folders outside the data folder that images may be read from (default: none)",
}
PIXELS: Metadata = {
    "default": MAX_IMAGE_PIXELS,
    **COUNT,
    "help": "refuse images with more pixels: a small file can claim any size and exhaust memory",
}
FRAMES_READ: Metadata = {
    "default": FRAMES,
    **COUNT,
    "help": "frames to read from a video, evenly spaced; a model that takes no videos gets them as images "
    f"(default: {FRAMES})",
}
SPLIT: Metadata = {
    "type": lambda text: None if text == ALL_SPLITS else text,
    "metavar": "NAME",
    "help": "split, by its name in the data set (default: all but train)",
}
LIMIT: Metadata = {**COUNT, "help": "questions per task, evenly spaced (default: all)"}
#: Offered only where `auto` is the default; elsewhere, results should not depend on how weights are stored.
DTYPE: Metadata = {
    "default": "auto",
    "choices": DTYPES,
    "help": "data type of the model; auto: the checkpoint's, but float32 on a CPU that is slow in that type (every CPU "
    "in float16, many in bfloat16)",
}
KEEP_RATIO: Metadata = {"type": fraction, "metavar": "RATIO", "help": "fraction of the visual tokens to keep"}
SEED: Metadata = {"default": 0, "type": at_least(0), "metavar": "N", "help": "random seed"}


def tasks(use: str) -> Metadata:
    """use: the verb for what the command does with tasks."""
    return {
        "nargs": "+",
        "metavar": "NAME",
        "help": f"tasks to {use}, by name or as your own class, my_module:MyTask (default: your own questions alone, "
        "if there are any; otherwise every folder named after a task); required for a set whose files are directly in "
        "--data",
    }


def batch_tokens(use: str = "in a batch") -> Metadata:
    return {
        **COUNT,
        "help": f"maximum number of tokens {use}, before pruning and with padding (default: {BATCH_TOKENS})",
    }


def strategies(also: str = "") -> Metadata:
    return {
        "name": "--strategy",
        "nargs": "+",
        "metavar": "NAME",
        "help": f"one or more of: {FORM}{also}",
        "completer": complete_strategy,
    }


def strategy(also: str = "") -> Metadata:
    return {"metavar": "NAME", "help": FORM + also, "completer": complete_strategy}


def keep_ratios(also: str = "") -> Metadata:
    return {
        "name": "--keep-ratio",
        "nargs": "+",
        "type": fraction,
        "metavar": "RATIO",
        "help": "fractions of the visual tokens to keep; every strategy runs at each of them, a settings file at its "
        f"own{also}",
    }


def position_ids(also: str = " (default: the strategy's)") -> Metadata:
    return {
        "nargs": "+",
        "choices": POSITION_IDS,
        "metavar": "KIND",
        "help": f"position IDs of the kept tokens: original, compact (renumbered), or both{also}",
    }


def output(default: str, what: str) -> Metadata:
    return {"type": a_path, "default": Path(default), "metavar": "DIR", "help": what}


class _StoreBox(Action):
    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        left, top, right, bottom = values
        if not (all(map(isfinite, values)) and left < right and top < bottom):
            raise ArgumentError(
                self, f"{' '.join(f'{edge:g}' for edge in values)} is not a box: X1 must be below X2, and Y1 below Y2"
            )
        setattr(namespace, self.dest, (left, top, right, bottom))


def add_required_model(parser: ArgumentParser, what: str = "model folder or Hugging Face name", **more: Any) -> None:
    """Add --model to a command for which a forgotten --model must not mean the bundled model."""
    parser.add_argument("--model", type=not_empty, required=True, metavar="PATH", help=what, **more)


def add_allowed(parser: ArgumentParser) -> None:
    """Add the options that limit what a data set can make a command read."""
    add_option(parser, "image_root", IMAGE_ROOTS, default=())
    add_option(parser, "max_image_pixels", PIXELS)


def add_dtype(parser: ArgumentParser, default: str = "auto") -> None:
    if default == "auto":
        add_option(parser, "dtype", DTYPE)
    else:
        parser.add_argument("--dtype", choices=DTYPES[1:], default=default, help="data type of the model")


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


def add_calibration(parser: ArgumentParser, questions: int = 30) -> None:
    """Add the options that say which questions settings are searched on."""
    add_option(parser, "data", DATA)
    add_allowed(parser)
    parser.add_argument(
        "--split",
        metavar="NAME",
        help=f"split to draw questions from, which you must not evaluate on later; {ALL_SPLITS}: every split except "
        f"train (default: {CALIBRATION_SPLIT}; {ALL_SPLITS} if the data set has no splits)",
    )
    parser.add_argument(
        "--questions",
        type=count,
        default=questions,
        metavar="N",
        help="number of questions to draw at random; their labels are not read",
    )
    add_option(parser, "seed", SEED)
