"""What in-LLM stages know of the forward that is in progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from tokenprune.engine.call import PerThread
from tokenprune.engine.select import Chosen
from tokenprune.engine.stages.run import StageRun
from tokenprune.engine.stages.slots import StageSlots
from tokenprune.report import StageReport
from tokenprune.sequence.packing import Packing


class StagedForward(PerThread):
    """The forward that is in progress.

    runs: of the stages that are decided already.
    resumed: makes those of a forward that goes on behind a pruned cache, for layers that turn out to need them.
    cuts: whether layers without a mask may need something: stages are decided, or hold holes of that cache.
    done: what each of them did, to every image.
    past: what each stage holds before.
    chosen, text: the images, and if stages read attention the columns of the text behind each.
    entering: what entered the language model; None in a forward without pictures.
    first: the hidden states that entered the first layer, if stages read attention.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.runs: list[StageRun] = []
        self.resumed: Callable[[], list[StageRun]] | None = None
        self.cuts = False
        self.done: list[list[StageReport]] = []
        self.past: list[StageSlots] = []
        self.chosen: Sequence[Chosen] = ()
        self.text: list[Tensor] = []
        self.entering: Packing | None = None
        self.first: Tensor | None = None
        self.cache: Any = None
        self.n_slots = 0
