"""Measure what a patch adds to a decode step, against the unpatched model with caches of the same lengths.

    python -m tokenprune.evals.dev.experiments.decode_steps --output evals/results/data/decode_steps.json

LLaVA-1.5's 24-layer test shape, so narrow that a step is almost only Python: CPU time of one thread. On a GPU, the full
cost shows if the GPU waits for Python at every step, and none of it if the GPU's own work takes longer.
"""

import argparse
import gc
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, DynamicCache

from tokenprune.evals.bench.figures import Median
from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.bench.inputs.shapes import config_of
from tokenprune.evals.dev.experiments.narrow import narrowed
from tokenprune.evals.models.cache import cache_in
from tokenprune.evals.run.setups import Pruned, make_setups
from tokenprune.evals.storage.provenance import device_name, versions

SHAPE, KEEP_RATIO = "llava-1.5-0.5b", 0.125
STRATEGIES = ("random", "fopru:mode=rank", "visionzip", "vflowopt", "fastv", "pyramiddrop", "sparsevlm")
#: Rounds of each strategy, and how many of them use the same caches before new ones are filled.
ROUNDS, AGAIN = 80, 20
#: Consecutive steps that are timed, after one that is not.
STEPS = 9


@dataclass(frozen=True)
class Step:
    """The CPU seconds of a decode step under one strategy: without the patch, and what the patch adds."""

    label: str
    plain: Median
    added: Median


def step(model: Any, inputs: prompts.Inputs, pruned: Pruned, rounds: int = ROUNDS) -> Step:
    """Time steps with and without the patch, alternately."""
    times = list(_rounds(model, inputs, pruned, rounds))
    plain, added = Median.of([one for one, _ in times]), Median.of([other - one for one, other in times])
    assert plain is not None
    assert added is not None
    return Step(pruned.label, plain, added)


@torch.inference_mode()
def _rounds(model: Any, inputs: prompts.Inputs, pruned: Pruned, rounds: int) -> Iterator[tuple[float, float]]:
    name, cache, plain = "", None, None
    for number in range(rounds):
        if number % AGAIN == 0:
            with pruned.patched(model):
                name, cache = cache_in(model(**inputs, use_cache=True, logits_to_keep=1))
            plain = _unpruned(cache)
        seconds = _timed(model, {name: plain})
        with pruned.patched(model):
            yield seconds, _timed(model, {name: cache})


def _unpruned(cache: Any) -> DynamicCache:
    """Return a plain cache with the same keys and values, which the patch does not know."""
    plain = DynamicCache()
    for number, layer in enumerate(cache.layers):
        plain.update(layer.keys, layer.values, number)
    return plain


def _timed(model: Any, cache: dict[str, Any]) -> float:
    token = torch.ones(1, 1, dtype=torch.long)
    model(input_ids=token, use_cache=True, **cache)
    start = time.process_time()
    for _ in range(STEPS):
        model(input_ids=token, use_cache=True, **cache)
    return (time.process_time() - start) / STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/decode_steps.json"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    gc.disable()
    model = AutoModelForImageTextToText.from_config(narrowed(config_of(SHAPE))).eval()
    inputs = prompts.random_prompt(model, 1)
    asked = make_setups(STRATEGIES, [KEEP_RATIO], ["original"], baselines=[])
    steps = [step(model, inputs, one, options.rounds) for one in asked if isinstance(one, Pruned)]
    about = {
        "keep_ratio": KEEP_RATIO,
        "n_visual": prompts.n_visual(model, inputs),
        "rounds": options.rounds,
        "device": device_name(model.device),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"about": about, "steps": [asdict(one) for one in steps]}
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
