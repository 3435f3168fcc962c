"""The state of one call of a patched model.

CallContext   the call in progress, as every hook sees it
  Arguments     what the model is called with
  Encodings     the images that are encoded for the language model
    Encoding      one call of a feature function, which encodes images
  Forward       one call of the base model, and what becomes of it
    Incoming      what it brings, known when it begins
    Pruned        what pruning leaves of that, known when the language model is entered
  Outcome       what outlives the call
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.encoded import EncodedImage
from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.cache.pruned import Views, is_static, physical_view, prompt_slots, span
from tokenprune.engine.failures import nested
from tokenprune.errors import PruningError
from tokenprune.sequence.finished_masks import MaskRequest
from tokenprune.sequence.masks import Mask, is_pattern, padding_of, prunable_mask
from tokenprune.sequence.packing import Packing, Slots, identity_packing

if TYPE_CHECKING:
    from tokenprune.engine.attention import WithheldIds
    from tokenprune.engine.labels import FusedLabels
    from tokenprune.engine.stages.forward import StagedForward
    from tokenprune.engine.tower.batch import BatchCut
    from tokenprune.engine.tower.call import TowerCall
    from tokenprune.report import Report
    from tokenprune.selection import Selection


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


@dataclass(frozen=True, eq=False)
class Arguments:
    """What the model is called with, as far as it matters later.

    records: the images that reach the model already encoded, by modality.
    unprunable: arguments that only fit the unpruned sequence; None if the model's hook has not seen the call.
    labels: the labels of the model's loss, if there are any.
    fused: the labels that a trainer compares with hidden states itself, if it does.
    """

    records: Mapping[str, list[EncodedImage]] = field(default_factory=dict)
    unprunable: list[str] | None = None
    labels: Tensor | None = None
    fused: FusedLabels | None = None


@dataclass(eq=False)
class Encodings:
    """The images of the next call of the base model, or of the one in progress. Only `VisionRecorder` writes it, and
    `TowerPruning` the tower's call.

    now: the call of a feature function; None outside of one.
    tower: the call of the vision tower, if the strategy prunes in it or before it.
    modalities: what was encoded since the last call of the base model began.
    images: the images or tiles encoded so far for the call of the base model, by the modalities that it brings.
    """

    now: Encoding | None = None
    tower: TowerCall | None = None
    modalities: list[str] = field(default_factory=list)
    images: dict[str, list[EncodedImage]] = field(default_factory=dict)

    def collect(self, images: dict[str, list[EncodedImage]]) -> None:
        """Add what is encoded from now on to these images, for a call that brings their modalities."""
        self.images = images

    def begin_call(self) -> set[str]:
        """Begin a call of the base model. Returns the modalities that were encoded before it."""
        before, self.modalities, self.images = {*self.modalities}, [], {}
        return before


@dataclass(eq=False)
class Outcome:
    """What outlives a call. Only `Prefill` writes it.

    packing: the columns that the last logits belong to, for the loss, which is computed later; None for all.
    report: the report of the last call that had visual tokens.
    """

    packing: Packing | None = None
    report: Report | None = None


class CallContext(threading.local):
    """The call in progress, one per thread, by phases. When the base model returns, `drop` forgets it, except for
    `running` and `outcome`.

    views: the views of pruned caches that language models may be using; shared by all threads.
    running: whether the model's forward is being executed. Only `ModelForward` writes it.
    cut_off: whether this thread removed the patch during its own call, before everything was pruned. `Pruner` sets
        it, `ModelForward` clears it.
    begun: whether a call of the base model is in progress whose start this patch has seen.
    forward: that call, if it has images or a pruned cache. Like `arguments` and `begun`, only `Prefill` writes it.

    A copy or pickle of it is empty.
    """

    def __init__(self, views: Views) -> None:
        self.views, self.running, self.outcome = views, False, Outcome()
        self.drop()

    def drop(self) -> None:
        """Forget the call."""
        self.arguments, self.encodings = Arguments(), Encodings()
        self.begun = self.cut_off = False
        self.forward: Forward | None = None

    def check_alone(self) -> None:
        """Raise PruningError if a call of the base model begins inside another one that it would forget."""
        if self.encodings.now is not None or (self.running and self.forward is not None):
            raise nested()

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
        ids, device = kwargs.get("position_ids"), kwargs["inputs_embeds"].device
        if ids is None:  # the model's own; padding counts
            ids = torch.arange(self.n_columns, self.n_columns + self.n_new, device=device)[None]
        ids = ids.to(device)
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
        """The attention mask over slots for the language model. The first case counts:

        a layer needs a bias, a pattern or a window   finished masks, for every kind of layer
        the call prunes nothing, after one that did   the mask that the base model got, over slots
        every slot may be attended to                 None: the model makes a causal one itself, if any
        otherwise                                     which slots are valid
        """
        new, index, embeds, decoder = self.incoming, self.incoming.index, kwargs["inputs_embeds"], adapter.decoder
        mask, padded = prunable_mask(kwargs.get("attention_mask")), not is_pattern(new.columns_mask)
        if decoder.layers.own_masks and padded:
            mask = None
        bias = None if self.pruned is None else self.pruned.bias
        biased = bias is not None or (index is not None and index.bias is not None)
        if biased or is_pattern(mask) or decoder.layers.patterned:
            decoder.check_masks(biased)  # the attention may have been switched since
            (slots, packing), view = self._slots(embeds), physical_view(new.cache)
            spans = partial(span, view, new.n_slots)
            dtype = embeds.dtype if biased else decoder.mask_dtype(embeds.dtype)
            first = None if new.padding is None else (~new.padding).int().argmax(1).to(embeds.device)
            request = MaskRequest(slots, packing, new.n_columns, spans, dtype, first, prompt_slots(view))
            return request.masks(mask, decoder.layers)
        if self.pruned is None and index is not None and padded:
            return index.over_slots(cast("Tensor | None", new.columns_mask), new.n_columns + new.n_new)
        all_seen = self._attends_to_all()
        decoder.check_masks()
        if all_seen and not (decoder.runs_flash and is_static(new.cache)):  # whose end FlashAttention finds by the mask
            return None
        return self._slots(embeds)[0].valid

    def _attends_to_all(self) -> bool:
        """Whether what the call leaves may attend to every slot before it. No GPU is waited for."""
        new, index = self.incoming, self.incoming.index
        # Without cache and mask, gaps in the position IDs would be read as borders of packed sequences.
        if new.cache is None or self.pruned is None or self.pruned.packing.holes:
            return False
        return new.n_slots == 0 or (new.padding is None and not (index is not None and index.holes))

    def _slots(self, embeds: Tensor) -> tuple[Slots, Packing]:
        """The slots of the cache and of the new tokens that are left, and these tokens."""
        new, pruned, size, device = self.incoming, self.pruned, len(embeds), embeds.device
        packing, bias = (pruned.packing, pruned.bias) if pruned else (identity_packing(size, new.n_new, device), None)
        slots = new.past(size, device).append(packing, new.n_columns, bias)
        return (slots if new.padding is None else slots.mask_padding(new.padding.to(device))), packing
