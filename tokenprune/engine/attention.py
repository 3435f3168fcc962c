"""What attention must know of pruned tokens, besides masks.

A row's position IDs have gaps, which FlashAttention takes for borders between packed sequences. transformers then
splits keys where it splits queries. That changes nothing in a first prompt, whose position IDs begin once; but images
pruned while the cache already holds something would see only themselves. Rotary embeddings are made before the decoder
layers run, so the layers can do without position IDs. Real borders, where position IDs begin again, are refused with
other attention implementations.

Proportional attention: the log of how many tokens a merged token stands for is added to the logits of its key. This
bias becomes part of the masks: of those over slots for all decoder layers, and of a stage's own for what was merged
there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tokenprune.engine.patch import dynamo_disabled
from tokenprune.engine.select import ImageSelection
from tokenprune.errors import PruningError
from tokenprune.selection import Selection, StageReport
from tokenprune.sequence.packing import Packing


def check_not_packed(ids: Real[Tensor, "*components batch new"]) -> None:
    """Raise PruningError if several sequences are packed in one row, in a call without cache and mask: its position IDs
    begin again. transformers keeps them apart, but not with the mask that a pruned row needs. FlashAttention reads the
    borders itself."""
    first = ids.flatten(0, -3)[0] if ids.ndim > 2 else ids
    # The ID after an image can be lower than the image's, but not as low as that of the row's first token.
    if bool(((first.diff() < 0) & (first[..., 1:] <= first[..., :1])).any()):
        raise PruningError(
            "several sequences are packed in one row (position_ids begin again), and pruning would let them see each "
            "other. Pass them as rows of a padded batch with an attention_mask, or load the model with "
            'attn_implementation="flash_attention_2".'
        )


class WithheldIds:
    """Hides position IDs from decoder layers until `remove`, in calls for which `applies` is true. Raises PruningError
    for layers whose attention computes with them."""

    def __init__(self, layers: nn.ModuleList, applies: Callable[[], bool]) -> None:
        if any(map(_computes_with_ids, layers)):
            raise PruningError(
                f"{type(layers[0]).__name__} computes with position IDs, in whose gaps FlashAttention sees borders "
                f"between packed sequences, so images cannot be pruned in a later turn. Load the model with "
                f'attn_implementation="sdpa", write patch(model, ..., position_ids="compact"), or start from an empty '
                f"cache."
            )
        self._applies = applies
        self._hooks: list[RemovableHandle] = [
            layer.register_forward_pre_hook(self.before_layer, with_kwargs=True) for layer in layers
        ]

    @dynamo_disabled
    def before_layer(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if kwargs.get("position_ids") is None or not self._applies():
            return None
        return args, {**kwargs, "position_ids": None}

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _computes_with_ids(layer: nn.Module) -> bool:
    """Whether a module in the layer requires position IDs; others only pass them on to the attention function."""
    parts = (inspect.signature(type(part).forward).parameters for part in layer.modules() if part is not layer)
    return any("position_ids" in names and names["position_ids"].default is inspect.Parameter.empty for names in parts)


def entering_bias(chosen: Sequence[ImageSelection], packing: Packing) -> Float[Tensor, "batch kept"]:
    """The bias of every column that enters the language model; 0 for columns outside images."""
    size, device = (len(packing.columns), packing.n_columns), packing.columns.device
    bias = torch.zeros(size, dtype=torch.float32, device=device)
    for image in chosen:
        bias[image.row, image.columns[image.selection.kept]] = image.selection.sizes().log()
    return packing.gather_tokens(bias)


def stage_bias(
    chosen: Sequence[ImageSelection], reports: Sequence[Sequence[StageReport]], entering: Packing, packing: Packing
) -> Float[Tensor, "batch left"]:
    """What a stage adds to the bias of the columns that are left, for what it and the stages before it have merged.

    reports: what each of those stages did to every image.
    entering: the columns that entered the language model.
    packing: those of them that are left from the last of those stages on.
    """
    places, device = entering.places(), entering.columns.device
    bias = torch.zeros(entering.columns.shape, dtype=torch.float32, device=device)
    for i, image in enumerate(chosen):
        first = sizes = _of_all(image.selection, bias.new_ones(image.selection.n_visual))
        for stage in reports:
            kept, merged = stage[i].kept, stage[i].merged
            sizes = _of_all(Selection(kept, image.selection.n_visual, merged=merged, trusted=True), sizes)
        still = reports[-1][i].kept
        bias[image.row, places[image.row, image.columns[still]]] = (sizes[still] / first[still]).log()
    return packing.gather_tokens(bias)


def _of_all(selection: Selection, before: Float[Tensor, " visual"]) -> Float[Tensor, " visual"]:
    """The sizes of an image's visual tokens after a selection; 0 for those that it drops."""
    return torch.zeros_like(before).index_copy(0, selection.kept, selection.sizes(before))
