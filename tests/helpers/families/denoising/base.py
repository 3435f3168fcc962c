"""What the tests must know of a family that denoises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from helpers.families.base import Family


@dataclass(frozen=True)
class Closed:
    """What an oracle closes to attention: columns of the prompt that are not cached, and those that a step does not
    read.

    dropped: by layer, (batch, length) bool.
    late: number of a step, counted through all canvases -> (batch, length) bool.
    position_ids: of the prompt, and `ahead` is by how much those after it are lower.
    """

    dropped: list[Tensor]
    late: dict[int, Tensor]
    position_ids: Tensor | None = None
    ahead: Tensor | None = None

    def at(self, layer: int, step: int) -> Tensor:
        """What a step does not see in a layer."""
        found = self.dropped[layer]
        return found | self.late[step] if step in self.late else found


@dataclass(frozen=True)
class Denoised:
    """What a mode produced: the inputs of every step, as the oracle repeats them, and what came out of it."""

    steps: list[dict[str, Any]]
    outputs: Tensor


class DenoisingFamily(Family):
    """modes: the ways to run the model."""

    modes: tuple[str, ...]

    def denoise(self, model: Any, inputs: dict[str, Any], mode: str) -> Denoised:
        raise NotImplementedError

    def expected(self, model: Any, inputs: dict[str, Any], done: Denoised, closed: Closed) -> Tensor:
        """What the unpatched model puts out in these steps."""
        raise NotImplementedError
