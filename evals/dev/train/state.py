"""Checkpoints of a training run: written completely or not at all. The last two are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

KEPT = 2


def save(folder: Path, stage: int, step: int, state: dict[str, Any]) -> None:
    """Write `folder`/state-STAGE-STEP.pt. A kill while writing leaves the earlier ones intact."""
    file = folder / f"state-{stage}-{step:06d}.pt"
    unfinished = file.with_suffix(".tmp")
    torch.save({"stage": stage, "step": step, **state}, unfinished)
    unfinished.replace(file)
    for old in sorted(folder.glob("state-*.pt"))[:-KEPT]:
        old.unlink()


def latest(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint; None if there is none."""
    files = sorted(folder.glob("state-*.pt"))
    return torch.load(files[-1], map_location="cpu", weights_only=True) if files else None
