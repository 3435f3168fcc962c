"""The state of one call of a patched model, and how its arguments are named."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.wrappers import unwrap_part
from tokenprune.encoded import EncodedImage
from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.cache.pruned import Views, is_static, physical_view, prompt_slots, span
from tokenprune.errors import PruningError
from tokenprune.sequence.input_masks import Mask, is_pattern, padding_of, prunable_mask
from tokenprune.sequence.masks import MaskRequest
from tokenprune.sequence.packing import Packing, Slots, identity_packing
from tokenprune.sequence.position_ids import default_ids

if TYPE_CHECKING:
    from tokenprune.engine.denoising.policy import ActionSteps
    from tokenprune.engine.fused_head import FusedLabels
    from tokenprune.engine.packed_sequences import WithheldIds
    from tokenprune.engine.recording import Encoding
    from tokenprune.engine.stages.forward import StagedForward
    from tokenprune.engine.tower.batch import TowerCall
    from tokenprune.engine.tower.row import RowCall
    from tokenprune.report import Report


#: What the cache is called in arguments and outputs: the first from 5.2x on, the second before.
CACHE_NAMES = ("cache", "past_key_values")


class CallContext(threading.local):
    """The call in progress, one per thread. When the base model returns, `drop` forgets it as a whole.

    views: those of pruned caches that language models may be using; shared by all threads.
    encoding: the call of a feature function; None outside of one.
    tower, row: the call of the vision tower, if the strategy prunes in it or before it: of one that takes a batch of
        tiles, or all patches in one row.
    records: the images that the model got already encoded, by modality.
    unprunable: arguments of the model that only fit the unpruned sequence; None unless its hook has seen the call.
    labels: those of its loss, if there are any. fused: the same if a trainer compares them itself.
    begun: whether a call of the base model is in progress, whose beginning this patch has seen.
    encoded: the modalities of what was encoded since the last call of the base model began.
    forward: the call of the base model, if it has images or a pruned cache. actions: the steps of a robot policy.
    cut_off: whether this thread removed the patch during its own call, before everything was pruned.
    packing: which columns the last logits are of; None if of all. The loss is computed after the base model has
        returned, so this one outlives the call. So does `report`, of the last call that had visual tokens.

    A copy or pickle of it is empty.
    """

    def __init__(self, views: Views) -> None:
        self.views = views
        self.packing: Packing | None = None
        self.report: Report | None = None
        self.drop()

    def drop(self) -> None:
        """Forget the call, except for `packing` and `report`."""
        self.encoding: Encoding | None = None
        self.tower: TowerCall | None = None
        self.row: RowCall | None = None
        self.records: dict[str, list[EncodedImage]] = {}
        self.unprunable: list[str] | None = None
        self.labels: Tensor | None = None
        self.fused: FusedLabels | None = None
        self.begun = self.cut_off = False
        self.encoded: list[str] = []
        self.forward: Forward | None = None
        self.actions: ActionSteps | None = None

    def __reduce__(self) -> tuple[type[CallContext], tuple[Views]]:
        return type(self), (Views(),)


@dataclass
class Forward:
    """A call that has images or a pruned cache.

    visual: which of the new columns are visual tokens, by modality; empty without images.
    image_starts: at which of the new columns an image begins, of modalities whose function is given tiles.
    images: the images, or tiles, of each of those modalities that are encoded so far.
    n_slots, n_columns: physical and logical length of the cache at the start.
    columns_mask: the attention mask of the call, over columns.
    ids_given: whether the call has position IDs; otherwise the model makes them.
    n_new: how many columns the call brings; known when the language model is entered.
    pruned: whether the language model was called and its visual tokens selected.
    packing, shift: which of the new columns are left, and by how much later position IDs are lower, None if they are
        not; set when anything is dropped.
    bias: what is added to the attention logits of the keys of the new columns that are left; None if nothing is.
    report: what was done to its images.
    new_index: the index of the cache when all layers have seen the call, in-LLM stages aside.
    view: the cache as the language model sees it.
    stages: the state of in-LLM stages, if there are any.
    withheld_ids: keeps the position IDs from the decoder layers; None if they may have them.
    """

    cache: Any
    index: CacheIndex | None
    visual: dict[str, Tensor]
    image_starts: dict[str, Tensor | None]
    images: dict[str, list[EncodedImage]]
    n_slots: int
    n_columns: int
    columns_mask: Mask
    ids_given: bool
    n_new: int = 0
    pruned: bool = False
    packing: Packing | None = None
    shift: Real[Tensor, " batch"] | None = None
    bias: Float[Tensor, "batch kept"] | None = None
    report: Report | None = None
    new_index: CacheIndex | None = None
    view: Any = None
    stages: StagedForward | None = None
    withheld_ids: WithheldIds | None = None

    @cached_property
    def padding(self) -> Bool[Tensor, "rows columns"] | None:
        """Which of all columns are padding; None if none is."""
        return padding_of(self.columns_mask, self.n_columns, self.n_new)

    def incoming_ids(self, kwargs: Mapping[str, Any]) -> Tensor:
        """The position IDs of the new columns; after a pruned prompt with compact IDs, those that continue it."""
        ids = kwargs.get("position_ids")
        if ids is None:
            ids = default_ids(self.n_columns, self.n_new, kwargs["inputs_embeds"].device)
        ids = ids.to(kwargs["inputs_embeds"].device)
        if self.index is None:
            return ids
        # Given a mask over the cache, Qwen-VL numbers the cache's columns as well, and new images like text.
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
        """What the cache holds at the start."""
        if self.index is None:
            return Slots.empty(batch, device).extend(self.n_slots, 0)
        return self.index.slots(self.n_slots)

    def past_valid(self, batch: int, device: torch.device) -> Bool[Tensor, "batch slots"]:
        """Which of the cache's slots may be attended to."""
        past = self.past(batch, device)
        return past.valid if self.padding is None else past.mask_padding(self.padding.to(device)).valid

    def mask(self, adapter: ModelAdapter, kwargs: Mapping[str, Any]) -> Mask:
        """The attention mask over slots for a call of the language model; None if it may make a causal one itself."""
        mask, embeds = prunable_mask(kwargs.get("attention_mask")), kwargs["inputs_embeds"]
        if adapter.decoder.layers.own_masks and not is_pattern(self.columns_mask):
            mask = None
        biased = self.bias is not None or (self.index is not None and self.index.bias is not None)
        patterned = biased or is_pattern(mask) or adapter.decoder.layers.patterned
        if not patterned and self.packing is None and self.index is not None and not is_pattern(self.columns_mask):
            return self.index.over_slots(cast("Tensor | None", self.columns_mask), self.n_columns + self.n_new)
        # Without cache and mask, gaps in the position IDs would be read as borders of packed sequences.
        grows = self.cache is not None and self.packing is not None and not self.packing.holes
        no_holes = self.n_slots == 0 or (self.padding is None and not (self.index is not None and self.index.holes))
        # FlashAttention finds the end of a static cache by the mask.
        ends = adapter.decoder.runs_flash and is_static(self.cache)
        if not patterned and grows and no_holes and not ends:  # all slots may be attended to, without waiting for a GPU
            return None
        packing = self.packing or identity_packing(len(embeds), self.n_new, embeds.device)
        slots = self.past(len(embeds), embeds.device).append(packing, self.n_columns, self.bias)
        if self.padding is not None:
            slots = slots.mask_padding(self.padding.to(embeds.device))
        if not patterned:
            return slots.valid
        adapter.decoder.check_masks(biased)  # the attention may have been exchanged since
        spans = partial(span, physical_view(self.cache), self.n_slots)
        dtype = embeds.dtype if biased else adapter.decoder.mask_dtype(embeds.dtype)
        first = None if self.padding is None else (~self.padding).int().argmax(1).to(embeds.device)
        prompt = prompt_slots(physical_view(self.cache))
        call = MaskRequest(slots, packing, self.n_columns, spans, dtype, first, prompt)
        return call.masks(mask, adapter.decoder.layers)


def named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a module's call by name, in a new dict."""
    return bind_arguments(unwrap_part(module).forward, args, kwargs) if args else dict(kwargs)


def bind_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, those that ** catches included."""
    method = isinstance(function, MethodType)
    signature = _signature(function.__func__) if method else inspect.signature(function)
    named = dict(signature.bind_partial(*((None, *args) if method else args), **kwargs).arguments)
    if method:
        del named[next(iter(signature.parameters))]
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named


def hidden_states_first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a layer's call, with hidden states that were passed by name as the first of them."""
    if args:
        return args, kwargs
    others = dict(kwargs)
    return (others.pop("hidden_states"),), others


def new_size(kwargs: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many rows and columns a call of the base model brings."""
    new = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
    return new.shape[0], new.shape[1]


def find_cache(*places: Any) -> Any:
    """Return the first cache in the arguments or outputs of a call; None if there is none."""
    for place in places:
        if isinstance(place, dict):
            # dict's own get: an output warns when it is asked for the old name.
            for name in CACHE_NAMES:
                if (cache := dict.get(place, name)) is not None:
                    return cache
        # Under another name, or in a tuple.
        values = place.values() if isinstance(place, dict) else place if isinstance(place, tuple) else ()
        for value in values:
            if hasattr(value, "get_seq_length") and hasattr(value, "update"):
                return value
    return None


def has_unknown_values(output: Any) -> bool:
    """Whether an output holds anything but tensors and rows of them: a cache of an unknown kind, for instance."""
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else (output,)
    rows = (value if isinstance(value, (tuple, list)) else (value,) for value in values)
    return any(not (part is None or isinstance(part, Tensor)) for row in rows for part in row)


def last_columns(output: dict[str, Any], n: int) -> None:
    """Leave the last `n` columns of a language model's output, in place. A model that tells its language model how
    many logits it wants takes them to be there if they are fewer than its prompt had (Gemma 4)."""
    output["last_hidden_state"] = output["last_hidden_state"][:, -n:]


def check_placeholders(adapter: ModelAdapter, modalities: set[str], kwargs: Mapping[str, Any]) -> None:
    """Raise PruningError if a prompt has placeholder tokens of images that were encoded for it, and they came under a
    name that the adapter does not know. If nothing came, the model is its own assistant, which transformers gives no
    images."""
    if not any(_holds_features(value) for name, value in kwargs.items() if name != "attention_mask"):
        return
    ids = kwargs.get("input_ids")
    for modality in adapter.modalities:
        if modality.name in modalities and ids is not None and bool((ids == modality.token_id).any()):
            raise PruningError(
                f"{type(adapter.model).__name__} encoded {modality.name}s for this prompt and passes them on in a way "
                f"that {type(adapter).__name__} does not know, so nothing would be pruned. Remove the patch, and "
                f"report it with your transformers version."
            )


def unknown_cache(model: nn.Module) -> PruningError:
    """The error of a model that returns the cache of a pruned prompt where it was not found."""
    return PruningError(
        f"{type(model).__name__} returns the cache of a pruned prompt in a way that tokenprune does not know. Pass "
        f"use_cache=False, or report it with your transformers version."
    )


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Of a class's function, not of a bound one: that would keep a model alive."""
    return inspect.signature(function)


def _holds_features(argument: Any) -> bool:
    if isinstance(argument, Tensor):
        return argument.is_floating_point()
    parts = argument.values() if isinstance(argument, Mapping) else argument
    return isinstance(argument, (Mapping, list, tuple)) and any(map(_holds_features, parts))
