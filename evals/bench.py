"""Prefill time against the ideal: `python -m tokenprune.evals.bench --help`.

A pruner can do no better than the same model on a prompt that was that short from the start. That ideal is the
unpatched vision tower and projector, called directly, and then the unpatched language model on as many visual tokens
as the strategy keeps. Everything is measured in one process, in turn, and compared within a round, so that whatever
else the machine does hits all alike; the ratios are medians over the rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from tokenprune.evals.bench_model import prompt, real_shape
from tokenprune.evals.configurations import DEFAULT_STRATEGIES, DOWNSAMPLE, Pruned, configurations
from tokenprune.evals.runner import versions

PRUNING = tuple(name for name in DEFAULT_STRATEGIES if name != DOWNSAMPLE)


@dataclass(frozen=True)
class Timing:
    """Prefill of one configuration. Ratios are medians over the rounds, each within its round.

    `spread` is the lowest and the highest ratio to the ideal.
    """

    strategy: str
    keep_ratio: float
    n_visual: int
    n_kept: int
    seconds: float
    to_ideal: float
    spread: tuple[float, float]
    to_unpruned: float


def bench(model: Any, pruned: Sequence[Pruned], *, rounds: int, n_text: int = 40) -> list[Timing]:
    """Measure the prefill of `model` with each configuration beside its ideal and the unpruned model."""
    inputs = prompt(model, n_text)
    n_visual = int((inputs["input_ids"] == model.config.image_token_id).sum())
    timers: dict[Any, Callable[[], float]] = {"unpruned": lambda: _seconds(lambda: _prefill(model, inputs))}
    for configuration in pruned:
        n_kept = configuration.strategy.budget(n_visual)
        timers["ideal", n_kept] = lambda n_kept=n_kept: _seconds(lambda: ideal(model, inputs, n_kept))
        timers[configuration.label, n_kept] = lambda c=configuration: _patched_seconds(model, inputs, c)
    for timer in timers.values():
        timer()  # the first call of each allocates
    seconds = [
        {name: timers[name]() for name in (list(timers) if turn % 2 else list(reversed(timers)))}
        for turn in track(range(rounds), "rounds")
    ]
    timings = []
    for configuration in pruned:
        n_kept = configuration.strategy.budget(n_visual)
        own = [turn[configuration.label, n_kept] for turn in seconds]
        to_ideal = [value / turn["ideal", n_kept] for value, turn in zip(own, seconds, strict=True)]
        to_unpruned = [value / turn["unpruned"] for value, turn in zip(own, seconds, strict=True)]
        timings.append(
            Timing(
                strategy=configuration.label,
                keep_ratio=configuration.keep_ratio,
                n_visual=n_visual,
                n_kept=n_kept,
                seconds=statistics.median(own),
                to_ideal=statistics.median(to_ideal),
                spread=(min(to_ideal), max(to_ideal)),
                to_unpruned=statistics.median(to_unpruned),
            )
        )
    return timings


def ideal(model: Any, inputs: dict[str, Tensor], n_kept: int) -> Any:
    """Run the unpatched parts on `n_kept` visual tokens, as if the picture had given no more."""
    features = model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
    visual = inputs["input_ids"] == model.config.image_token_id
    ids = inputs["input_ids"][~visual | (visual.cumsum(1) <= n_kept)].unsqueeze(0)
    embeds = model.get_input_embeddings()(ids)
    embeds[ids == model.config.image_token_id] = features[0][:n_kept].to(embeds.dtype)
    return model(inputs_embeds=embeds, attention_mask=torch.ones_like(ids), use_cache=True, logits_to_keep=1)


def _prefill(model: Any, inputs: dict[str, Tensor]) -> Any:
    return model(**inputs, use_cache=True, logits_to_keep=1)


def _patched_seconds(model: Any, inputs: dict[str, Tensor], configuration: Pruned) -> float:
    with configuration.patched(model):
        return _seconds(lambda: _prefill(model, inputs))


@torch.inference_mode()
def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def table(timings: Sequence[Timing]) -> Table:
    result = Table(title="Prefill time; to ideal = 1 is the same model on a prompt that was that short from the start")
    for heading in ("strategy", "visual tokens", "median", "to ideal", "lowest, highest", "to unpruned"):
        result.add_column(heading, justify="left" if heading == "strategy" else "right", no_wrap=True)
    for timing in timings:
        result.add_row(
            timing.strategy,
            f"{timing.n_kept} of {timing.n_visual}",
            f"{timing.seconds:.3f} s",
            f"{timing.to_ideal:.3f}",
            f"{timing.spread[0]:.3f}, {timing.spread[1]:.3f}",
            f"{timing.to_unpruned:.3f}",
        )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals.bench",
        description="Prefill time of a random-weight LLaVA of real shape (CLIP-L/336 tower, Qwen2-0.5B language model) "
        "for each strategy, against the same model on a prompt that was that short from the start.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--keep-ratios", type=float, nargs="+", default=[0.25], metavar="RATIO")
    parser.add_argument(
        "--strategies", nargs="+", default=PRUNING, metavar="NAME", help="with settings: fopru:mode=row"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs/bench.json"))
    options = parser.parse_args(arguments)
    console = Console(width=None if Console().is_terminal else 140)
    pruned = [
        configuration
        for configuration in configurations(options.strategies, options.keep_ratios)
        if isinstance(configuration, Pruned) and configuration.position_ids == "original"
    ]
    model = real_shape().to("cuda" if torch.cuda.is_available() else "cpu")
    timings = bench(model, pruned, rounds=options.rounds)
    console.print(table(timings))
    result = {"timings": [asdict(timing) for timing in timings], "rounds": options.rounds, "versions": versions()}
    result |= {"device": str(model.device), "threads": torch.get_num_threads(), "dtype": str(model.dtype)}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
