"""A training state small enough to move to another machine: weights in 8 bits, a scale per row, no optimiser state."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tokenprune.evals.dev.train import state
from tokenprune.evals.dev.train.run import LOG

SMALLEST = 4096  # values; smaller tensors stay as they are
_SCALE = "/scale"


def compress(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return matrices as int8 and `NAME/scale`, and everything else in float32."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        tensor = tensor.float().clone(memory_format=torch.contiguous_format)
        if tensor.ndim == 2 and tensor.numel() >= SMALLEST:
            scale = tensor.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            found[name], found[name + _SCALE] = (tensor / scale).round().to(torch.int8), scale
        else:
            found[name] = tensor
    return found


def expand(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what `compress` was given, to within half a step of each row's scale."""
    return {
        name: tensor * stored[name + _SCALE] if name + _SCALE in stored else tensor
        for name, tensor in stored.items()
        if not name.endswith(_SCALE)
    }


def save(run: Path, file: Path) -> int:
    """Write the weights of a run's newest checkpoint, and its log next to them; return the step.

    Raises SystemExit if the run has no checkpoint of stage two.
    """
    saved = state.latest(run)
    if saved is None or saved["stage"] != 2:
        raise SystemExit(f"{run} holds no checkpoint of stage two")
    weights = {f"{part}.{name}": t for part in ("tower", "trainee") for name, t in saved[part].items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(compress(weights), file, metadata={"step": str(saved["step"])})
    shutil.copyfile(run / LOG, file.with_suffix(".jsonl"))
    return saved["step"]


def load(file: Path, run: Path) -> dict[str, Any]:
    """Return a checkpoint like `state.latest`, but without optimisers. Copies the log into the run's folder."""
    with safe_open(file, "pt") as opened:
        weights = expand({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
        step = int(opened.metadata()["step"])
    shutil.copyfile(file.with_suffix(".jsonl"), run / LOG)
    parts = {
        part: {name.removeprefix(f"{part}."): t for name, t in weights.items() if name.startswith(f"{part}.")}
        for part in ("tower", "trainee")
    }
    return {"stage": 2, "step": step, **parts}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tokenprune.evals.dev.train.compact", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a training run in stage two")
    parser.add_argument("file", type=Path, help="file to write, which `--start-from` of the training reads")
    args = parser.parse_args()
    step = save(args.run, args.file)
    print(f"{args.file}: step {step}, {args.file.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
