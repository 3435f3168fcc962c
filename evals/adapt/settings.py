"""The arguments of `adapt`, which are the options of `tokenprune adapt`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from tokenprune.evals.arguments import options
from tokenprune.evals.arguments.fields import Settings, option
from tokenprune.evals.arguments.parser import fraction, number
from tokenprune.evals.defaults import DEFAULT_STRATEGY, MAX_IMAGE_PIXELS

if TYPE_CHECKING:
    from rich.console import Console

#: decoder: the linear layers of the decoder. projector: those between vision tower and language model.
Part = Literal["decoder", "projector", "both"]


@dataclass(frozen=True)
class AdaptationSettings(Settings):
    """See `tokenprune.adapt`, which takes these as its arguments."""

    model: str | PathLike[str] = field(metadata=options.MODEL)
    _: KW_ONLY
    tasks: Sequence[str] | None = option(None, options.tasks("train on"))
    data: str | Path = field(metadata=options.DATA)
    image_roots: Sequence[str | Path] = option((), options.IMAGE_ROOTS)
    max_image_pixels: int = option(MAX_IMAGE_PIXELS, options.PIXELS)
    split: str | None = option(
        None, metavar="NAME", help="split, by its name in the data set (default: train, if there is one, otherwise all)"
    )
    limit: int | None = option(None, options.LIMIT)
    labels: bool = option(
        True,
        name="--no-labels",
        action="store_false",
        help="train on the unpruned model's own answers instead of the labels",
    )
    strategy: str = option(DEFAULT_STRATEGY, options.strategy("; or downsample, which shrinks the images instead"))
    keep_ratio: float = option(
        0.1, options.KEEP_RATIO, help="lowest fraction of the visual tokens to keep in a pruned step"
    )
    up_to: float = option(0.5, type=fraction, metavar="RATIO", help="highest fraction to keep in a pruned step")
    whole: float = option(0.25, type=number, metavar="SHARE", help="share of steps without pruning")
    part: Part = option(
        "decoder",
        choices=get_args(Part),
        help="linear layers to train: the decoder's, those between vision tower and decoder, or both",
    )
    rank: int = option(16, options.COUNT, help="LoRA rank")
    steps: int = option(300, options.COUNT, help="optimiser steps")
    batch: int = option(8, options.COUNT, help="images per forward pass")
    per_image: int = option(
        8,
        options.COUNT,
        help="maximum number of questions that share an image's tokens, if the model and the strategy allow it",
    )
    accumulate: int = option(1, options.COUNT, help="forward passes per step")
    learning_rate: float = option(2e-4, type=number, metavar="RATE", help="peak learning rate")
    save_every: int = option(50, options.COUNT, help="steps between checkpoints")
    seed: int = option(0, options.SEED)
    dtype: str = option("auto", options.DTYPE)
    batch_tokens: int | None = option(
        None,
        options.batch_tokens(
            "in a batch of the unpruned model's own answers (--no-labels), unless questions share an image's tokens"
        ),
    )
    output: str | Path = field(
        metadata=options.output(
            "runs/adapted", "folder for the adapter and its checkpoints; the same command resumes the training"
        )
    )
    console: Console | None = None
