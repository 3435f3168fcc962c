"""The state of in-LLM stages in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.cache.stage_slots import StageSlots
from tokenprune.engine.select import ImageSelection
from tokenprune.engine.stages.run import StageRun, text_places
from tokenprune.errors import PruningError
from tokenprune.report import ImageReport
from tokenprune.selection import Selection, StageReport, scores_of_all
from tokenprune.sequence.packing import Packing
from tokenprune.strategy import Stage
from tokenprune.tokens.stages import FirstLayerInputs


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

    def first_inputs(
        self, hidden: Float[Tensor, "length width"], number: int, device: torch.device
    ) -> FirstLayerInputs:
        """What entered the language model for an image and for the text after it, from its row of `hidden`, moved to
        `device`."""
        image = self.chosen[number]
        visual = self.packing.places()[image.row, image.columns[image.selection.kept]]
        text = text_places([self.packing], image.row, self.text[number])
        return FirstLayerInputs(hidden[visual.to(hidden.device)].to(device), hidden[text.to(hidden.device)].to(device))


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


def forward_replaced(layer: int) -> PruningError:
    """The error for a decoder layer whose overrides somebody has removed."""
    return PruningError(
        f"decoder layer {layer} was called past this patch, because the forward of its modules was replaced after "
        f"patch(), as accelerate does when hooks are removed or set again. Call patch() again."
    )


def report_of(stage: Stage, left: Int[Tensor, " left"], n_visual: int, selection: Selection) -> StageReport:
    """What a stage did, given its selection from the tokens of `n_visual` that were left before it."""
    kept, merged = left[selection.kept], selection.merged
    if merged is not None:
        merged = merged.detach().in_image(left, torch.arange(len(kept), device=kept.device))
    return StageReport(stage.layer, kept, scores_of_all(selection.scores, left, n_visual), merged)
