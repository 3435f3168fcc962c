"""Time and memory of selection alone, for growing numbers of frames: the own work of video strategies.

    python -m tokenprune.evals.dev.experiments.selection.videos --output evals/results/data/videos/selection.jsonl

The video is one shot in which everything moves a little, with 196 tokens of width 896 per frame in bfloat16, as in
LLaVA-OneVision with half a billion parameters. It is FastVID's worst case: long segments, whose tokens are all compared
with the anchors of every fourth frame. Seconds are CPU time, which other processes hardly affect, and include merging.
The peak is that of all tensors except the video's features.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tokenprune.evals.bench.timing.memory import with_peak
from tokenprune.evals.storage.provenance import versions
from tokenprune.strategies.parsing import parse
from tokenprune.strategy import Strategy
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

FRAMES = (8, 16, 32, 64, 128, 256)
STRATEGIES = ("evs", "vidcom2", "vcast", "dycokettm", "fastvid")
SIDE, WIDTH, HEADS, HEAD_WIDTH = 14, 896, 16, 72


def video(n_frames: int, width: int = WIDTH) -> VisualTokens:
    """Return one shot: a scene that changes by a twentieth of its contrast from frame to frame."""
    torch.manual_seed(0)
    features = torch.empty(n_frames, SIDE**2, width, dtype=torch.bfloat16)
    scene = torch.randn(SIDE**2, width) + 1
    for frame in features:
        scene += 0.05 * torch.randn_like(scene)
        frame.copy_(scene)
    layout = Layout(((n_frames, SIDE, SIDE),), n_frames)
    queries, keys = torch.randn(2, n_frames, HEADS, SIDE**2, HEAD_WIDTH, dtype=torch.bfloat16)
    attention = VisionAttention(queries, keys, HEAD_WIDTH**-0.5, 0, layout)
    return VisualTokens(features.flatten(0, 1), layout, 0, {"vision_attention": attention})


@torch.inference_mode()
def measured(strategy: Strategy, tokens: VisualTokens, rounds: int) -> dict[str, Any]:
    """Return the CPU seconds of each round, and the peak memory."""

    def select() -> int:
        found = strategy.select(tokens)
        if found.merged is not None:
            found.merged.apply(tokens.features, found.kept)
        return len(found.kept)

    n_kept, peak = with_peak(select, torch.device("cpu"))
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        select()
        seconds.append(round(time.process_time() - start, 5))
    size = tokens.features.nbytes
    return {"n_visual": tokens.n_visual, "n_kept": n_kept, "seconds": seconds, "peak_bytes": peak, "given_bytes": size}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", nargs="+", type=int, default=FRAMES)
    parser.add_argument("--strategy", nargs="+", default=STRATEGIES)
    parser.add_argument("--keep-ratio", nargs="+", type=float, default=[0.25, 0.1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", encoding="utf-8") as file:
        for n_frames in options.frames:
            tokens = video(n_frames)
            for ratio in options.keep_ratio:
                for name in options.strategy:
                    row: dict[str, Any] = {"frames": n_frames, "strategy": name, "keep_ratio": ratio}
                    row |= measured(parse(name, keep_ratio=ratio), tokens, options.rounds)
                    row |= {"threads": options.threads, "versions": versions()}
                    file.write(json.dumps(row) + "\n")
                    file.flush()


if __name__ == "__main__":
    main()
