"""The state of in-LLM stages in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.cache.stage_slots import StageSlots
from tokenprune.engine.select import ImageSelection
from tokenprune.engine.stages.capture import forward_replaced
from tokenprune.engine.stages.run import StageRun
from tokenprune.report import ImageReport
from tokenprune.selection import StageReport
from tokenprune.sequence.packing import Packing


@dataclass(eq=False)
class StagedPrompt:
    """A prompt that enters the language model and is pruned there in stages.

    packing: the columns that enter.
    chosen: the images, with what was selected from them before the language model.
    in_prompt: which columns of the call belong to the prompt, not to an answer to learn; None if all do.
    text: the columns of the text after each image, if stages read attention.
    past: the slots that each stage holds before the forward.
    hidden: the input of the first layer, until the last stage is decided; None unless stages read attention.
    """

    packing: Packing
    chosen: Sequence[ImageSelection]
    in_prompt: Bool[Tensor, "batch columns"] | None
    text: list[Tensor]
    past: list[StageSlots]
    hidden: Float[Tensor, "batch length width"] | None = None


@dataclass(eq=False)
class StagedForward:
    """One forward through stages, and its outcome.

    layers: the first decoder layer of each stage.
    cache: the KV cache, if there is one.
    n_slots: how many slots of the cache's first layer were taken at the start.
    entry: the prompt that enters; None for a forward that continues one.
    continues: the index of the pruned cache that a forward without images continues, until a layer turns out to need
        `runs`, which are only then made.
    embeds: what enters in such a forward.
    runs: the runs of the stages that are decided so far.
    reports: what each of these stages did to every image.
    captured: by decoder layer, what its attention was called with and what its capture points returned.
    asking: while a layer that is about to be entered is captured, the place of each row's last token.
    active: whether layers that get no mask may need their arguments changed.
    """

    layers: Sequence[int]
    cache: Any
    n_slots: int
    entry: StagedPrompt | None = None
    continues: CacheIndex | None = None
    embeds: Tensor | None = None
    runs: list[StageRun] = field(default_factory=list)
    reports: list[list[StageReport]] = field(default_factory=list)
    captured: dict[int, dict[str, Any]] = field(default_factory=dict)
    asking: Int[Tensor, " batch"] | None = None
    active: bool = False

    @property
    def undecided(self) -> Sequence[int]:
        """The first layers of the stages still undecided, in a forward that should go through all of them."""
        return () if self.entry is None else self.layers[len(self.runs) :]

    @property
    def slots(self) -> tuple[StageSlots, ...]:
        """The slots that each stage holds after the forward."""
        return tuple(run.slots for run in self.runs)

    def lengths(self, n_layers: int) -> dict[int, int]:
        """How many slots each layer from the first stage up to `n_layers` holds after the forward; -1 if its stage is
        undecided."""
        held = [stage.slots.shape[1] for stage in self.slots] + [-1] * (len(self.layers) - len(self.runs))
        staged = range(self.layers[0], n_layers)
        return {layer: held[sum(first <= layer for first in self.layers) - 1] for layer in staged}

    def leaving(self, entering: Packing) -> Packing:
        """Which of the columns that entered the language model come out of the last layer. Raises PruningError if a
        stage was not decided."""
        if self.undecided:
            raise forward_replaced(self.undecided[0])
        last = self.runs[-1].packing
        return replace(last, columns=entering.columns.gather(1, last.columns), n_columns=entering.n_columns)

    def reported(self, images: Sequence[ImageReport]) -> list[ImageReport]:
        """The reports of the images that entered, completed with what each stage did to them."""
        return [
            replace(image, stages=done) for image, done in zip(images, zip(*self.reports, strict=True), strict=True)
        ]
