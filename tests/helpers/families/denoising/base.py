"""What tests need to know about a family that denoises."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from helpers.families.base import Family


@dataclass(frozen=True)
class Closed:
    """What an oracle masks: columns of the prompt that are not cached, and those that a step does not read.

    dropped: by layer, (batch, length) bool.
    late: number of a step, counted through all canvases -> (batch, length) bool.
    position_ids: those of the prompt. `ahead` is by how much those after it are lower.
    """

    dropped: list[Tensor]
    late: dict[int, Tensor]
    position_ids: Tensor | None = None
    ahead: Tensor | None = None

    def at(self, layer: int, step: int) -> Tensor:
        """Return what a step does not see in a layer."""
        found = self.dropped[layer]
        return found | self.late[step] if step in self.late else found


@dataclass(frozen=True)
class Denoised:
    """The result of a mode: the inputs of every step, for the oracle to repeat, and its outputs."""

    steps: list[dict[str, Any]]
    outputs: Tensor


class DenoisingFamily(Family):
    """modes: the ways to run the model."""

    modes: tuple[str, ...]

    def denoise(self, model: Any, inputs: dict[str, Any], mode: str) -> Denoised:
        raise NotImplementedError

    def expected(self, model: Any, inputs: dict[str, Any], done: Denoised, closed: Closed) -> Tensor:
        """Return the unpatched model's outputs in these steps."""
        raise NotImplementedError
