"""The arguments of `tune`, which are the options of `tokenprune tune`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from tokenprune.evals.arguments import options
from tokenprune.evals.arguments.fields import Settings, option
from tokenprune.evals.arguments.options import Model
from tokenprune.evals.arguments.parser import fraction, number
from tokenprune.evals.defaults import MAX_IMAGE_PIXELS, SEARCHED_KEEP_RATIOS

if TYPE_CHECKING:
    from rich.console import Console

#: flops: operations of the prefill, vision tower included. kv: bytes of the KV cache after it. ttft: time to the first
#: token on this machine, vision tower included.
Cost = Literal["flops", "kv", "ttft"]
#: What is compared with the unpruned model without right answers.
Compare = Literal["answers", "first-token"]


@dataclass(frozen=True)
class TuningSettings(Settings):
    """See `tokenprune.tune`, which takes these as its arguments."""

    model: Model = field(metadata=options.MODEL)
    _: KW_ONLY
    max_loss: float = option(
        1.0,
        type=number,
        metavar="POINTS",
        help="maximum loss in points of accuracy, with 95 %% confidence; with --no-labels, in points of what "
        "--compare measures",
    )
    tasks: Sequence[str] | None = option(None, options.tasks("tune on"))
    data: str | Path = field(metadata=options.DATA)
    image_roots: Sequence[str | Path] = option((), options.IMAGE_ROOTS)
    max_image_pixels: int = option(MAX_IMAGE_PIXELS, options.PIXELS)
    split: str | None = option(None, options.SPLIT)
    limit: int | None = option(None, options.LIMIT)
    labels: bool = option(
        True,
        name="--no-labels",
        action="store_false",
        help="compare with the unpruned model's own answers instead of the labels",
    )
    compare: Compare | None = option(
        None,
        choices=get_args(Compare),
        help="with --no-labels: compare answers, or the distributions of their first tokens, for which a point "
        "is an average total variation distance of 0.01 (default: answers)",
    )
    strategies: Sequence[str] | None = option(None, options.strategies(" (default: all that need no calibration)"))
    keep_ratios: tuple[float, float] = option(
        SEARCHED_KEEP_RATIOS,
        name="--keep-ratio",
        nargs=2,
        type=fraction,
        metavar=("LOWEST", "HIGHEST"),
        help="range of the fraction of visual tokens to keep",
    )
    cost: Cost = option(
        "flops",
        choices=get_args(Cost),
        help="what to minimise: operations of the prefill, bytes of KV cache, or time to first token on this machine",
    )
    servable: bool = option(False, action="store_true", help="try only what `tokenprune serve` can run in vLLM")
    generations: int = option(3, options.COUNT, help="number of times to propose new settings")
    size: int = option(24, options.COUNT, help="number of settings to propose each time")
    seed: int = option(0, options.SEED)
    dtype: str = option("auto", options.DTYPE)
    batch_tokens: int | None = option(None, options.batch_tokens())
    output: str | Path = field(
        metadata=options.output(
            "runs/tuned", "folder for settings file, page, plot and all answers; the same command resumes the search"
        )
    )
    console: Console | None = None
