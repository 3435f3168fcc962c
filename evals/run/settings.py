"""The arguments of `evaluate`, which are the options of `tokenprune eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tokenprune.evals.arguments import options
from tokenprune.evals.arguments.fields import Settings, option
from tokenprune.evals.arguments.options import Model
from tokenprune.evals.arguments.parser import count, existing_file, json_object
from tokenprune.evals.defaults import DEFAULT_KEEP_RATIOS, DEFAULT_STRATEGIES, FRAMES, MAX_IMAGE_PIXELS, POSITION_IDS
from tokenprune.evals.models.bundled import MODEL, SCENES

if TYPE_CHECKING:
    from rich.console import Console

    import tokenprune

#: What a failed question does to a run.
OnError = Literal["stop", "record"]
#: In place of strategies or baselines, no name at all.
NONE = "none"
_STRATEGIES = f"those of {' '.join(DEFAULT_STRATEGIES)} that the model supports"
_RATIOS = " ".join(map(str, DEFAULT_KEEP_RATIOS))
_SERVERS = "with a server, the server's"


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """See `tokenprune.evals.evaluate`, which takes these as its arguments."""

    model: Model = option(str(MODEL), options.MODEL)
    _: KW_ONLY
    strategies: Sequence[str | PathLike[str] | tokenprune.Strategy] | None = option(
        None, options.strategies(f"; {NONE}: baselines only (default: {_STRATEGIES}; {_SERVERS})")
    )
    keep_ratios: Sequence[float] | None = option(None, options.keep_ratios(f" (default: {_RATIOS}; {_SERVERS})"))
    position_ids: Sequence[str] | None = option(
        None, options.position_ids(f" (default: {' '.join(POSITION_IDS)}; {_SERVERS})")
    )
    baselines: Sequence[str] | None = option(
        None,
        nargs="+",
        metavar="NAME",
        help=f"baselines to run too: unpruned, random, downsample, or {NONE} (default: all that the model supports)",
    )
    tasks: Sequence[str] | None = option(None, options.tasks("run"))
    data: str | Path = option(SCENES, options.DATA)
    image_roots: Sequence[str | Path] = option((), options.IMAGE_ROOTS)
    max_image_pixels: int = option(MAX_IMAGE_PIXELS, options.PIXELS)
    split: str | None = option(None, options.SPLIT)
    limit: int | None = option(None, options.LIMIT)
    apart_from: Sequence[str | Path] = option(
        (),
        nargs="+",
        type=existing_file,
        metavar="FILE",
        help="settings files whose calibration images every setup leaves out, so that this run asks the same "
        "questions as a run of these files (default: those in --strategy)",
    )
    frames: int = option(FRAMES, options.FRAMES_READ)
    image_size: tuple[int, int] | None = option(
        None,
        nargs=2,
        type=count,
        metavar=("HEIGHT", "WIDTH"),
        help="size in pixels to resize images to, for a model that accepts several; where images keep their shape, or "
        "are cut into tiles, they get about as many pixels, or as many tiles; changes the number of visual tokens in "
        "every setup (default: the processor's)",
    )
    pad: bool = option(
        False,
        action="store_true",
        help="pad images to squares, as LLaVA-1.5 was trained, where the processor would crop them to the middle",
    )
    dtype: str = option("auto", options.DTYPE)
    device_map: str | None = option(
        None,
        metavar="MAP",
        help="auto: spread a model that is too large for one device across all of them (default: one device)",
    )
    batch_tokens: int | None = option(None, options.batch_tokens())
    on_error: OnError = option(
        "stop",
        choices=get_args(OnError),
        help="when a question fails: stop, or record it and count it separately, never as a wrong answer",
    )
    engine: str | None = option(
        None,
        metavar="NAME",
        help="run in vllm, or on the `tokenprune serve` server at this URL (default: transformers, in this process)",
    )
    engine_options: Mapping[str, Any] | None = option(
        None,
        type=json_object,
        metavar="JSON",
        help="with --engine vllm: arguments for vLLM's LLM, as JSON (default: {})",
    )
    output: str | Path = field(
        metadata=options.output(
            "runs/eval", "run folder: settings, every answer, results; the same command resumes the run"
        )
    )
    console: Console | None = None
