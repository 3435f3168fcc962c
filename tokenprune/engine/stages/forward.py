"""The state of in-LLM stages in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.select import ImageSelection
from tokenprune.engine.stages.run import StageRun
from tokenprune.engine.stages.slots import StageSlots
from tokenprune.selection import StageReport
from tokenprune.sequence.packing import Packing


@dataclass(eq=False)
class StagedPrompt:
    """A prompt that enters the language model and is pruned there in stages.

    packing: the columns that enter.
    chosen: the images, with what was selected before.
    in_prompt: which columns of the call are of the prompt, and not of an answer to learn; None if all are.
    text: the columns of the text after each image, if stages read attention.
    past: the slots that each stage holds before the forward.
    hidden: what enters the first layer, until the last stage is decided; only if stages read attention.
    """

    packing: Packing
    chosen: Sequence[ImageSelection]
    in_prompt: Bool[Tensor, "batch columns"] | None
    text: list[Tensor]
    past: list[StageSlots]
    hidden: Float[Tensor, "batch length width"] | None = None


@dataclass(eq=False)
class StagedForward:
    """One forward through stages.

    cache, n_slots: the cache, and how many slots of its first layer were taken at the start.
    entry: the prompt that enters; None for a forward that continues one.
    continues, embeds: the index of the pruned cache that a forward without images continues, and what enters. Its
        `runs` are made only once a layer turns out to need them.
    runs: of the stages that are decided so far.
    reports: what each of them did, to every image.
    captured: by decoder layer, what its attention was called with and what its capture points returned.
    active: whether layers that get no mask may need their arguments changed.
    """

    cache: Any
    n_slots: int
    entry: StagedPrompt | None = None
    continues: CacheIndex | None = None
    embeds: Tensor | None = None
    runs: list[StageRun] = field(default_factory=list)
    reports: list[list[StageReport]] = field(default_factory=list)
    captured: dict[int, dict[str, Any]] = field(default_factory=dict)
    active: bool = False
