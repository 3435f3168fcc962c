"""The state of one call of a patched model.

CallContext   the call in progress, as every hook sees it
  Encoding      one call of a feature function, which encodes images
  Forward       one call of the base model, and what becomes of it
    Incoming      what it brings, known when it begins
    Pruned        what pruning leaves of that, known when the language model is entered
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.encoded import EncodedImage
from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.cache.pruned import Views, is_static, physical_view, prompt_slots, span
from tokenprune.errors import PruningError
from tokenprune.sequence.input_masks import Mask, is_pattern, padding_of, prunable_mask
from tokenprune.sequence.masks import MaskRequest
from tokenprune.sequence.packing import Packing, Slots, identity_packing
from tokenprune.sequence.position_ids import default_ids

if TYPE_CHECKING:
    from tokenprune.engine.attention.packed_sequences import WithheldIds
    from tokenprune.engine.labels import FusedLabels
    from tokenprune.engine.stages.forward import StagedForward
    from tokenprune.engine.tower.batch import BatchCut
    from tokenprune.engine.tower.call import TowerCall
    from tokenprune.report import Report
    from tokenprune.selection import Selection


#: The error for a call of the model, or of its language model, inside another one.
NESTED = (
    "the patched model was called by its own strategy, or by a hook, in the middle of a call with images, which would "
    "then be pruned wrongly. Compute what it needs before that call, or call another model there, such as a copy made "
    "before patch()."
)


class Encoding:
    """One call of a feature function.

    tiles: for each statistic, one entry per tile that the tower has encoded so far.
    before: the selection from each image that the tower was given, if the strategy prunes before the tower.
    tower_call: what was captured of the tower's current call.
    cut: what the tower's last call left of a batch of tiles; None if that is everything.
    """

    def __init__(self, statistics: frozenset[str]) -> None:
        self.tiles: dict[str, list[Any]] = {name: [] for name in statistics - {"kept_before_tower"}}
        self.before: list[Selection] = []
        self.tower_call: dict[str, Any] = {}
        self.cut: BatchCut | None = None


class CallContext(threading.local):
    """The call in progress, one per thread. When the base model returns, `drop` forgets it as a whole.

    views: the views of pruned caches that language models may be using; shared by all threads.
    encoding: the call of a feature function; None outside of one.
    tower: the call of the vision tower, if the strategy prunes in it or before it.
    records: the images that reach the model already encoded, by modality.
    unprunable: arguments of the model that only fit the unpruned sequence; None unless its hook has seen the call.
    labels: the labels of the model's loss, if there are any.
    fused: the labels that a trainer compares with hidden states itself, if it does.
    running: whether the model's forward is being executed.
    begun: whether a call of the base model is in progress whose start this patch has seen.
    encoded: the modalities that were encoded since the last call of the base model began.
    images: the images or tiles encoded so far for the call of the base model, by the modalities that it brings.
    forward: the call of the base model, if it has images or a pruned cache.
    cut_off: whether this thread removed the patch during its own call, before everything was pruned.
    packing: the columns that the last logits belong to; None for all. It outlives the call, because the loss is
        computed after the base model has returned.
    report: the report of the last call that had visual tokens. It outlives the call, too.

    A copy or pickle of it is empty.
    """

    def __init__(self, views: Views) -> None:
        self.views = views
        self.running = False
        self.packing: Packing | None = None
        self.report: Report | None = None
        self.drop()

    def drop(self) -> None:
        """Forget the call, except for `running`, `packing` and `report`."""
        self.encoding: Encoding | None = None
        self.tower: TowerCall | None = None
        self.records: dict[str, list[EncodedImage]] = {}
        self.unprunable: list[str] | None = None
        self.labels: Tensor | None = None
        self.fused: FusedLabels | None = None
        self.begun = self.cut_off = False
        self.encoded: list[str] = []
        self.images: dict[str, list[EncodedImage]] = {}
        self.forward: Forward | None = None

    def check_alone(self) -> None:
        """Raise PruningError if a call of the base model begins inside another one that it would forget."""
        if self.encoding is not None or (self.running and self.forward is not None):
            raise PruningError(NESTED)

    def __reduce__(self) -> tuple[type[CallContext], tuple[Views]]:
        return type(self), (Views(),)


@dataclass(frozen=True, eq=False)
class Incoming:
    """What a call of the base model brings, and what its cache holds.

    cache: the KV cache, if there is one.
    index: which token each slot of the cache holds; None if nothing was pruned into it.
    visual: which of the new columns are visual tokens, by modality; empty without images.
    image_starts: which of the new columns begin an image, for modalities whose feature function is given tiles.
    n_slots: the physical length of the cache.
    n_columns: the logical length of the cache.
    n_new: how many columns the call adds.
    columns_mask: the attention mask, over columns.
    ids_given: whether the caller passed position IDs; otherwise the model makes them.
    """

    cache: Any
    index: CacheIndex | None
    visual: Mapping[str, Tensor]
    image_starts: Mapping[str, Tensor | None]
    n_slots: int
    n_columns: int
    n_new: int
    columns_mask: Mask
    ids_given: bool

    @cached_property
    def padding(self) -> Bool[Tensor, "rows columns"] | None:
        """Which columns, cached and new, are padding; None if none is."""
        return padding_of(self.columns_mask, self.n_columns, self.n_new)

    def position_ids(self, kwargs: Mapping[str, Any]) -> Tensor:
        """The position IDs of the new columns, from the language model's arguments. After a pruned prompt with compact
        IDs, they continue it."""
        ids = kwargs.get("position_ids")
        if ids is None:
            ids = default_ids(self.n_columns, self.n_new, kwargs["inputs_embeds"].device)
        ids = ids.to(kwargs["inputs_embeds"].device)
        if self.index is None:
            return ids
        # Given a mask over the cache, Qwen-VL also numbers the cache's columns, and numbers new images like text.
        if ids.shape[-1] > self.n_new and self.visual and not self.ids_given:
            raise PruningError(
                "the model cannot number the visual tokens of a later turn by itself. Pass position_ids of the new "
                "tokens, or call generate, which does."
            )
        ids = ids[..., -self.n_new :]
        return ids if self.index.shift is None else ids - self.index.shift[:, None]

    def real(self, batch: int, device: torch.device) -> Bool[Tensor, "batch new"]:
        """Which of the new columns are not padding."""
        if self.padding is None:
            return torch.ones(batch, self.n_new, dtype=torch.bool, device=device)
        return ~self.padding[:, self.n_columns :].to(device).expand(batch, -1)

    def past(self, batch: int, device: torch.device) -> Slots:
        """The slots of the cache."""
        if self.index is None:
            return Slots.empty(batch, device).extend(self.n_slots, 0)
        return self.index.slots(self.n_slots)

    def past_valid(self, batch: int, device: torch.device) -> Bool[Tensor, "batch slots"]:
        """Which of the cache's slots may be attended to."""
        past = self.past(batch, device)
        return past.valid if self.padding is None else past.mask_padding(self.padding.to(device)).valid


@dataclass(frozen=True, eq=False)
class Pruned:
    """What pruning before the language model leaves of the new columns.

    packing: the columns that are left.
    bias: what is added to the attention logits of their keys; None if nothing is.
    index: the index of the cache once all layers have seen the call, in-LLM stages aside.
    """

    packing: Packing
    bias: Float[Tensor, "batch kept"] | None
    index: CacheIndex


@dataclass(eq=False)
class Forward:
    """A call of the base model that has images or a pruned cache. Only `Prefill` changes it, when the language model is
    entered and left.

    incoming: what the call brings.
    report: what was done to its images; None until the strategy has selected from them.
    pruned: what is left of the new columns; None if nothing is dropped.
    stages: the state of in-LLM stages, if there are any.
    view: the cache as the language model sees it.
    withheld_ids: the hooks that hide position IDs from the decoder layers; None if the layers may see them.
    selects: whether the strategy has begun to select.
    """

    incoming: Incoming
    report: Report | None = None
    pruned: Pruned | None = None
    stages: StagedForward | None = None
    view: Any = None
    withheld_ids: WithheldIds | None = None
    selects: bool = False

    def index_after(self) -> CacheIndex | None:
        """The index of the cache once every layer has seen the call; None if it does not change."""
        if self.pruned is None:
            return None
        return self.pruned.index if self.stages is None else replace(self.pruned.index, stages=self.stages.slots)

    def mask(self, adapter: ModelAdapter, kwargs: Mapping[str, Any]) -> Mask:
        """The attention mask over slots for the language model; None if the model may make a causal one itself."""
        new, index = self.incoming, self.incoming.index
        packing, bias = (None, None) if self.pruned is None else (self.pruned.packing, self.pruned.bias)
        mask, embeds = prunable_mask(kwargs.get("attention_mask")), kwargs["inputs_embeds"]
        if adapter.decoder.layers.own_masks and not is_pattern(new.columns_mask):
            mask = None
        biased = bias is not None or (index is not None and index.bias is not None)
        patterned = biased or is_pattern(mask) or adapter.decoder.layers.patterned
        if not patterned and packing is None and index is not None and not is_pattern(new.columns_mask):
            return index.over_slots(cast("Tensor | None", new.columns_mask), new.n_columns + new.n_new)
        # Without cache and mask, gaps in the position IDs would be read as borders of packed sequences.
        grows = new.cache is not None and packing is not None and not packing.holes
        no_holes = new.n_slots == 0 or (new.padding is None and not (index is not None and index.holes))
        adapter.decoder.check_masks(biased)  # the attention may have been switched since
        # FlashAttention finds the end of a static cache by the mask.
        ends = adapter.decoder.runs_flash and is_static(new.cache)
        if not patterned and grows and no_holes and not ends:  # every slot may be attended to; no GPU is waited for
            return None
        packing = packing or identity_packing(len(embeds), new.n_new, embeds.device)
        slots = new.past(len(embeds), embeds.device).append(packing, new.n_columns, bias)
        if new.padding is not None:
            slots = slots.mask_padding(new.padding.to(embeds.device))
        if not patterned:
            return slots.valid
        spans = partial(span, physical_view(new.cache), new.n_slots)
        dtype = embeds.dtype if biased else adapter.decoder.mask_dtype(embeds.dtype)
        first = None if new.padding is None else (~new.padding).int().argmax(1).to(embeds.device)
        prompt = prompt_slots(physical_view(new.cache))
        call = MaskRequest(slots, packing, new.n_columns, spans, dtype, first, prompt)
        return call.masks(mask, adapter.decoder.layers)
