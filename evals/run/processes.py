"""The processes of a run: one, or as many as `accelerate launch` started on this and other machines."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch

# Finished processes wait for the last one, which can take longer than the default half hour.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process among those of a run. `meet` returns once all of them have called it."""

    index: int
    count: int
    device: str
    meet: Callable[[], None]

    @property
    def is_first(self) -> bool:
        return self.index == 0


def processes() -> Processes:
    """Join the processes that `accelerate launch` or torchrun started; without either, this is the only one."""
    if "WORLD_SIZE" not in os.environ:
        return Processes(0, 1, "cuda" if torch.cuda.is_available() else "cpu", lambda: None)
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    return Processes(state.process_index, state.num_processes, str(state.device), state.wait_for_everyone)
