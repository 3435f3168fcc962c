"""What a patch adds to a decode step, beside the unpatched model with a cache that holds as much in every layer.

    python -m tokenprune.evals.dev.experiments.decode_steps --into evals/README.md

LLaVA-1.5's 24-layer test shape, narrowed until a step is Python and next to nothing else: CPU time of one thread. A GPU
shows it in full where it waits for Python at every step, and not at all where its own work takes longer.
"""

import argparse
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, DynamicCache

from tokenprune.evals.bench import prompts
from tokenprune.evals.bench.clock import cache_in
from tokenprune.evals.bench.figures import Median
from tokenprune.evals.bench.shapes import config_of
from tokenprune.evals.report.markers import put_into
from tokenprune.evals.report.tables import Table
from tokenprune.evals.run.provenance import device_name, versions
from tokenprune.evals.run.setups import Pruned, make_setups

NAME = "tokenprune.evals.dev.experiments.decode_steps"
SHAPE, WIDTH, KEEP_RATIO = "llava-1.5-0.5b", 64, 0.125
STRATEGIES = ("random", "fopru:mode=rank", "visionzip", "vflowopt", "fastv", "pyramiddrop", "sparsevlm")
#: Rounds of each strategy, and those that go on with the same caches before they are made again.
ROUNDS, AGAIN = 80, 20
#: Steps in a row that are timed, after one that is not.
STEPS = 9


@dataclass(frozen=True)
class Step:
    """A decode step under one strategy, in seconds of CPU time: without the patch, and what it adds."""

    label: str
    plain: Median
    added: Median


def narrow_model() -> Any:
    """The shape's layers, random and narrow."""
    config = config_of(SHAPE)
    text = config.get_text_config()
    text.hidden_size = text.intermediate_size = WIDTH
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 4, 2, WIDTH // 4
    config.vision_config.num_hidden_layers = 2
    return AutoModelForImageTextToText.from_config(config).eval()


def step(model: Any, inputs: prompts.Inputs, pruned: Pruned, rounds: int = ROUNDS) -> Step:
    """Time steps without the patch and with it in turn."""
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
    """A cache with the same keys and values that nothing was pruned into."""
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


def table(steps: Sequence[Step]) -> Table:
    lines = []
    for one in steps:
        added = [f"{value * 1e3:.2f}" for value in (one.added.value, one.added.low, one.added.high)]
        share = f"{one.added.value / one.plain.value:.1%}"
        lines.append([one.label, f"{one.plain.value * 1e3:.1f} ms", f"{added[0]} [{added[1]}, {added[2]}] ms", share])
    return Table(["strategy", "step", "the patch adds", "of it"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, help="a document with marks")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    gc.disable()
    model = narrow_model()
    inputs = prompts.random_prompt(model, 1)
    asked = make_setups(STRATEGIES, [KEEP_RATIO], ["original"], baselines=[])
    steps = [step(model, inputs, one, options.rounds) for one in asked if isinstance(one, Pruned)]
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    text = (
        f"{table(steps)}\n\n{KEEP_RATIO:.1%} of 576 visual tokens, medians of {options.rounds} rounds with 95 % "
        f"interval; {device_name(model.device)}, one thread; {about}; {time.strftime('%Y-%m-%d')}\n"
    )
    if options.into is None:
        print(text)
    else:
        options.into.write_text(put_into(options.into.read_text(encoding="utf-8"), NAME, text), encoding="utf-8")


if __name__ == "__main__":
    main()
