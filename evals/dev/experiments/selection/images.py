"""The time of selection alone, for one image of 576 tokens: the strategies' own work, wherever they prune.

    python -m tokenprune.evals.dev.experiments.selection.images --output evals/results/data/selection.jsonl

The image has the shapes of LLaVA-1.5 with half a billion parameters: 24 x 24 tokens of width 1024, a tower of 16 heads
with a CLS token, and a language model of 24 layers of 16 heads, with 40 tokens of text after the image. Its values are
random, but neighbours are similar. Seconds are CPU time of one thread, which other processes hardly affect. They
include computing the attention rows that a strategy reads, all stages, and merging. Strategies that prune in the tower
or compare frames are not measured.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from tokenprune.evals.storage.provenance import versions
from tokenprune.strategies import STRATEGIES, parse
from tokenprune.strategy import StagedStrategy, Strategy
from tokenprune.tokens import FirstLayerInputs, Layout, StageTokens, TextAttention, VisionAttention, VisualTokens

SIDE, WIDTH, HEADS, HEAD_WIDTH, PIXELS = 24, 1024, 16, 64, 336
BEFORE, AFTER, LAYERS = 7, 40, 24
#: The statistics that the image has.
OFFERED = frozenset({"vision_attention", "cls", "pixels", "grid", "text_attention"})


def image() -> VisualTokens:
    torch.manual_seed(0)
    field = avg_pool2d(torch.randn(WIDTH, SIDE + 4, SIDE + 4), 5, stride=1) * 5  # means of 5 x 5, of variance 1
    features = field.flatten(1).T + torch.randn(SIDE**2, WIDTH) / 2
    queries, keys = torch.randn(2, 1, HEADS, 1 + SIDE**2, HEAD_WIDTH)
    layout = Layout.raster((1, SIDE, SIDE))
    attention = VisionAttention(queries, keys, HEAD_WIDTH**-0.5, 1, layout)
    pixels = torch.randn(3, PIXELS, PIXELS)
    return VisualTokens(features, layout, 0, {"vision_attention": attention, "pixels": [pixels]})


def at_stage(tokens: VisualTokens, left: Tensor, features: Tensor, scores: Tensor | None) -> StageTokens:
    """Return what a stage gets for the tokens that are left, with their features in place of hidden states."""
    n = BEFORE + len(left) + AFTER
    torch.manual_seed(1)
    queries, keys, values = torch.randn(3, HEADS, n, HEAD_WIDTH)
    angles = torch.arange(n)[:, None] / 10000 ** (torch.arange(HEAD_WIDTH) % (HEAD_WIDTH // 2) * 2 / HEAD_WIDTH)
    places, text = torch.arange(n), torch.randn(AFTER, WIDTH)
    attention = TextAttention(
        queries,
        keys,
        HEAD_WIDTH**-0.5,
        torch.ones(n).bool(),
        places[BEFORE : BEFORE + len(left)],
        places[BEFORE + len(left) :],
        values=values,
        rotation=torch.stack([angles.cos(), angles.sin()]),
    )
    return StageTokens(features, left, tokens.layout, scores, attention, lambda: FirstLayerInputs(features, text), text)


def seconds_of(strategy: Strategy, tokens: VisualTokens) -> tuple[float, int]:
    """Return the CPU seconds of one selection with all of its stages, and how many tokens are left at the end."""
    start = time.process_time()
    selection = strategy.select(tokens)
    features, left = tokens.features[selection.kept], selection.kept
    if selection.merged is not None:
        features = selection.merged.apply(tokens.features, left)
    seconds = time.process_time() - start
    if not isinstance(strategy, StagedStrategy):
        return seconds, len(left)
    for stage in strategy.stages(LAYERS):
        scores = None if selection.scores is None else selection.scores[selection.kept]
        reached = at_stage(tokens, left, features, scores)
        start = time.process_time()
        selection = strategy.select_at(stage, reached)
        left = left[selection.kept]
        merged = selection.merged
        features = features[selection.kept] if merged is None else merged.apply(features, selection.kept)
        seconds += time.process_time() - start
    return seconds, len(left)


def measurable() -> list[str]:
    """Return the registered strategies that need nothing that the image lacks, and two with cells. AdaToken runs at
    50 %, because the first quarter of its layers sees all tokens."""
    made = {name: cls() for name, cls in STRATEGIES.items()}
    names = [name for name, one in made.items() if one.needs <= OFFERED]
    return [
        *("adatoken:keep_ratio=0.5" if name == "adatoken" else name for name in names),
        *("fopru:score=cls", "fopru:score=cls,cells=auto", "visionzip:cells=auto"),
    ]


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", nargs="+", default=measurable())
    parser.add_argument("--keep-ratio", type=float, default=0.25, help="for strategies that do not set their own")
    parser.add_argument("--rounds", type=int, default=30, help="rounds; every strategy runs once in each")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tokens = image()
    ratio = {"keep_ratio": options.keep_ratio}
    strategies = {text: parse(text, **({} if "keep_ratio=" in text else ratio)) for text in options.strategy}
    n_left = {text: seconds_of(strategy, tokens)[1] for text, strategy in strategies.items()}  # which also warms up
    seconds: dict[str, list[float]] = {text: [] for text in strategies}
    for _ in range(options.rounds):
        for text, strategy in strategies.items():
            seconds[text].append(round(seconds_of(strategy, tokens)[0], 6))
    rows = [
        {"strategy": text, "keep_ratio": one.keep_ratio, "n_left": n_left[text], "seconds": seconds[text]}
        | {"versions": versions()}
        for text, one in strategies.items()
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
