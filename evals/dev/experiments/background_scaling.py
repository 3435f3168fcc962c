"""Measure what BackgroundPruning costs on images of many tiles."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch.nn.functional import interpolate

from tokenprune import BackgroundPruning
from tokenprune.engine.select import checked_selection
from tokenprune.evals.dev.tables.speed.background import table
from tokenprune.evals.storage.provenance import versions
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

# CLIP-L/336, as in GeoLLaVA-8K: the output for one tile.
SIDE, WIDTH, HEADS = 24, 1024, 16
KEEP = 24
TILES = (1, 16, 144, 576)  # 576 tiles of 336 px are an image of 8064 x 8064 pixels


def random_tokens(n_tiles: int) -> VisualTokens:
    """Draw features that change slowly within each tile, and queries and keys."""
    torch.manual_seed(0)
    layout = Layout.concat([Layout.raster((1, SIDE, SIDE))] * n_tiles)
    features = torch.empty(n_tiles, SIDE, SIDE, WIDTH)
    for tile in features:
        tile.copy_(interpolate(torch.randn(1, WIDTH, 6, 6), (SIDE, SIDE), mode="bicubic")[0].permute(1, 2, 0))
    queries, keys = (torch.randn(n_tiles, HEADS, 1 + SIDE**2, WIDTH // HEADS) for _ in range(2))
    attention = VisionAttention(queries, keys, (WIDTH // HEADS) ** -0.5, 1, layout)
    return VisualTokens(features.view(-1, WIDTH), layout, 0, {"vision_attention": attention})


@torch.inference_mode()
def measure(n_tiles: int, rounds: int, threads: int) -> dict[str, float]:
    """Measure CPU seconds, which other processes hardly affect, and bytes for one image. The peak is that of the whole
    process, so each size needs a process of its own."""
    torch.set_num_threads(threads)
    tokens = random_tokens(n_tiles)
    attention = tokens.vision_attention
    given = sum(part.nbytes for part in (tokens.features, attention.queries, attention.keys))
    before = peak()
    seconds, n_kept = [], KEEP * n_tiles
    for _ in range(rounds):
        start = time.process_time()
        selection = checked_selection(BackgroundPruning(keep=n_kept, threshold=0.95), tokens)
        seconds.append(time.process_time() - start)
        assert len(selection.kept) == n_kept
    return {
        "tiles": n_tiles,
        "visual_tokens": tokens.n_visual,
        "kept": n_kept,
        "seconds": statistics.median(seconds),
        "lowest": min(seconds),
        "highest": max(seconds),
        "given_bytes": given,
        "peak_bytes": peak(),
        "peak_before_bytes": before,
    }


def peak() -> int:
    """Return this process's peak memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals.dev.experiments.background_scaling",
        description="Prune drawn images of more and more tiles of 576 visual tokens of width 1024 to 24 a tile, and "
        "print time and memory.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tiles", type=int, nargs="+", default=TILES, metavar="N")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/background_scaling.jsonl"))
    options = parser.parse_args(arguments)
    sizes = []
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", encoding="utf-8") as output:
        for n_tiles in options.tiles:
            # A new process, not a fork of this one: the peak memory of a process never falls.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                row = pool.submit(measure, n_tiles, options.rounds, options.threads).result()
            about = {"rounds": options.rounds, "threads": options.threads, "device": "cpu", "versions": versions()}
            output.write(json.dumps(row | about) + "\n")
            output.flush()
            sizes.append(row)
    print(table(sizes))


if __name__ == "__main__":
    main()
