"""Prefill time against the ideal: `python -m tokenprune.evals.bench --help`.

A pruner can do no better than the same model on a prompt that was that short from the start. That ideal is the
unpatched vision tower and projector, called directly, and then the unpatched language model on as many visual tokens
as the strategy keeps. A strategy that prunes in the language model too has no such ideal; what its schedule allows is
counted in floating-point operations. Everything is measured in one process, in turn, and compared within a round, so
that whatever else the machine does hits all alike; the ratios are medians over the rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tokenprune.evals.bench_model import SHAPES, features, prompt
from tokenprune.evals.configurations import DEFAULT_STRATEGIES, Pruned, configurations
from tokenprune.evals.identity import versions

PRUNING = ("random", *DEFAULT_STRATEGIES)


class Ratio(NamedTuple):
    """A median over the rounds, and what it lies between."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.lowest:.3f}, {self.highest:.3f}]"


@dataclass(frozen=True)
class Timing:
    """Prefill of one configuration, vision tower included. Ratios of time are medians over the rounds, each within its
    round, with the lowest and the highest.

    `n_kept` enter the language model. `flops` are floating-point operations.
    `to_ideal` is None for a strategy with stages in the language model.
    """

    strategy: str
    keep_ratio: float
    n_visual: int
    n_kept: int
    seconds: float
    flops: int
    flops_to_unpruned: float
    to_unpruned: Ratio
    to_ideal: Ratio | None


def bench(model: Any, pruned: Sequence[Pruned], *, rounds: int, n_text: int = 40) -> list[Timing]:
    """Measure the prefill of `model` with each configuration beside the unpruned model and, if it has one, its ideal.

    The operations are counted in a first call of each, which also allocates.
    """
    inputs = prompt(model, n_text)
    n_visual = int((inputs["input_ids"] == model.config.image_token_id).sum())
    calls: dict[Any, Callable[[], object]] = {"unpruned": lambda: _prefill(model, inputs)}
    ideals: dict[Any, Any] = {}
    for configuration in pruned:
        n_kept = configuration.strategy.budget(n_visual)
        if not configuration.strategy.stages(model.config.text_config.num_hidden_layers):
            ideals[configuration.label, configuration.keep_ratio] = "ideal", n_kept
            calls["ideal", n_kept] = lambda n_kept=n_kept: ideal(model, inputs, n_kept)
        calls[configuration.label, configuration.keep_ratio] = lambda c=configuration: _patched(model, inputs, c)
    flops = {name: _flops(call) for name, call in track(calls.items(), "first calls")}
    seconds = [
        {name: _seconds(calls[name]) for name in (list(calls) if turn % 2 else list(reversed(calls)))}
        for turn in track(range(rounds), "rounds")
    ]

    def ratio(name: Any, other: Any) -> Ratio:
        ratios = [turn[name] / turn[other] for turn in seconds]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))

    timings = []
    for configuration in pruned:
        name = configuration.label, configuration.keep_ratio
        timings.append(
            Timing(
                strategy=configuration.label,
                keep_ratio=configuration.keep_ratio,
                n_visual=n_visual,
                n_kept=configuration.strategy.budget(n_visual),
                seconds=statistics.median(turn[name] for turn in seconds),
                flops=flops[name],
                flops_to_unpruned=flops[name] / flops["unpruned"],
                to_unpruned=ratio(name, "unpruned"),
                to_ideal=ratio(name, ideals[name]) if name in ideals else None,
            )
        )
    return timings


def ideal(model: Any, inputs: dict[str, Tensor], n_kept: int) -> Any:
    """Run the unpatched parts on `n_kept` visual tokens, as if the picture had given no more."""
    visual = inputs["input_ids"] == model.config.image_token_id
    ids = inputs["input_ids"][~visual | (visual.cumsum(1) <= n_kept)].unsqueeze(0)
    embeds = model.get_input_embeddings()(ids)
    embeds[ids == model.config.image_token_id] = features(model, inputs)[:n_kept].to(embeds.dtype)
    return model(inputs_embeds=embeds, attention_mask=torch.ones_like(ids), use_cache=True, logits_to_keep=1)


def _prefill(model: Any, inputs: dict[str, Tensor]) -> Any:
    return model(**inputs, use_cache=True, logits_to_keep=1)


def _patched(model: Any, inputs: dict[str, Tensor], configuration: Pruned) -> None:
    with configuration.patched(model):
        _prefill(model, inputs)


@torch.inference_mode()
def _flops(call: Callable[[], object]) -> int:
    """Attention is counted as the matrix products that it is: PyTorch's counter does not know every fused one."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@torch.inference_mode()
def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def table(timings: Sequence[Timing]) -> Table:
    result = Table(title="Prefill; to ideal = 1 is the same model on a prompt that was that short from the start")
    for heading in (
        "strategy",
        "retention",
        "visual tokens",
        "median",
        "FLOPs to unpruned",
        "time to unpruned",
        "time to ideal",
    ):
        result.add_column(heading, justify="left" if heading == "strategy" else "right", no_wrap=True)
    for timing in timings:
        result.add_row(
            timing.strategy,
            f"{timing.keep_ratio:.0%}",
            f"{timing.n_kept} of {timing.n_visual}",
            f"{timing.seconds:.3f} s",
            f"{timing.flops_to_unpruned:.3f}",
            str(timing.to_unpruned),
            str(timing.to_ideal or "\N{EN DASH}"),
        )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals.bench",
        description="Prefill time of a random-weight model of real shape for each strategy, against the unpruned model "
        "and against the same model on a prompt that was that short from the start.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--shape", choices=list(SHAPES), default=next(iter(SHAPES)))
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
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
    model = SHAPES[options.shape]().to("cuda" if torch.cuda.is_available() else "cpu", getattr(torch, options.dtype))
    timings = bench(model, pruned, rounds=options.rounds)
    console.print(table(timings))
    result = {"timings": [asdict(timing) for timing in timings], "rounds": options.rounds, "versions": versions()}
    result |= {
        "shape": options.shape,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "dtype": str(model.dtype),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
