"""Families that need only a configuration and inputs: position IDs, masks and the oracle come from the unpatched model
itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from .base import Family


class CommonFamily(Family):
    """The oracle is the unpatched model with its own position IDs and masks.

    contract: "masking": the whole conversation with nothing dropped; every decoder layer masks dropped columns.
        "never seen": each row separately; its language model gets only the columns that are left, at their original
        position IDs.
    eager_tower: whether everything except the language model must be built with eager attention.
    """

    contract: str = "masking"
    eager_tower: bool = False

    def build(self, attention: Any = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        parts: Any = (
            {"": "eager", "text_config": attention, "vision_config": "eager"} if self.eager_tower else attention
        )
        return super().build(parts, seed, n_layers)

    def language_model(self, model: Any) -> nn.Module:
        """Return the decoder without its head."""
        decoder = model.get_decoder()
        return getattr(decoder, "model", decoder)

    @cached_property
    def unpatched(self) -> Any:
        """A model for position IDs, which do not depend on weights, because a test's own model may be patched."""
        return self.build()

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return the position IDs that the base model passes to its language model for the unpruned sequence."""
        seen: dict[str, Any] = {}

        def look(module: nn.Module, args: Any, kwargs: Any) -> None:
            seen.update(kwargs)

        hook = self.language_model(self.unpatched).register_forward_pre_hook(look, with_kwargs=True)
        with torch.no_grad():
            self.unpatched(**inputs, use_cache=False)
        hook.remove()
        ids = seen.get("position_ids")
        if ids is None:
            return Family.position_ids(self, model, inputs)
        return ids.expand(*ids.shape[:-2], len(next(iter(inputs.values()))), -1)

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        embeds = self.unpatched.get_input_embeddings()(inputs["input_ids"]).detach()
        given = {key: value for key, value in inputs.items() if key != "input_ids"}
        return self.position_ids(model, {**given, "inputs_embeds": embeds})

    def compact_ids(self, model: Any, inputs: dict[str, Any], dropped: Tensor) -> Tensor:
        """With one component, IDs count what is left; with several, rows that lose anything are numbered like text."""
        ids, left = self.position_ids(model, inputs), inputs["attention_mask"].bool() & ~dropped
        counted = (left.cumsum(1) - 1).clamp(min=0)
        return counted if ids.ndim == 2 else torch.where(dropped.any(1, keepdim=True), counted, ids)

    def oracle(self, model: Any, inputs: dict[str, Any], dropped: Tensor, position_ids: Tensor | None = None) -> Tensor:
        closed = self._never_seen if self.contract == "never seen" else self._masked
        with eager(model), torch.no_grad():
            return closed(model, inputs, dropped, position_ids)

    def _masked(self, model: Any, inputs: dict[str, Any], dropped: Tensor, position_ids: Tensor | None) -> Tensor:
        itself = torch.eye(dropped.shape[1], dtype=torch.bool)[None, None] & dropped[:, None, None]

        def close(module: nn.Module, args: Any, kwargs: Any) -> Any:
            mask = kwargs["attention_mask"]
            assert isinstance(mask, Tensor), f"{type(module).__name__} got no mask to close"
            if mask.dtype == torch.bool:
                return args, {**kwargs, "attention_mask": (mask & ~dropped[:, None, None]) | itself}
            mask = mask.masked_fill(dropped[:, None, None], torch.finfo(mask.dtype).min)
            return args, {**kwargs, "attention_mask": mask.masked_fill(itself, 0.0)}

        language_model = self.language_model(model)
        layers: Any = language_model.get_submodule("layers")
        hooks = [layer.register_forward_pre_hook(close, with_kwargs=True) for layer in layers]
        hooks.append(language_model.register_forward_pre_hook(partial(renumber, position_ids), with_kwargs=True))
        try:
            return model(**inputs, use_cache=False).logits
        finally:
            for hook in hooks:
                hook.remove()

    def _never_seen(self, model: Any, inputs: dict[str, Any], dropped: Tensor, position_ids: Tensor | None) -> Tensor:
        real = inputs["attention_mask"].bool()
        logits = None
        for row in range(len(real)):
            left = (real[row] & ~dropped[row]).nonzero()[:, 0]
            hook = self.language_model(model).register_forward_pre_hook(
                partial(self._shorten, row, left, position_ids), with_kwargs=True
            )
            try:
                found = model(**inputs, use_cache=False).logits
            finally:
                hook.remove()
            if logits is None:
                logits = torch.zeros(*real.shape, found.shape[-1])
            logits[row, left] = found[0]
        assert logits is not None
        return logits

    def _shorten(
        self, row: int, left: Tensor, position_ids: Tensor | None, module: nn.Module, args: Any, kwargs: Any
    ) -> Any:
        """Return a call of the language model with only one row, and only the columns of it that are left."""
        batch, length, _ = kwargs["inputs_embeds"].shape
        _, kwargs = renumber(position_ids, module, args, kwargs)
        ids = kwargs.get("position_ids")
        ids = torch.arange(length)[None] if ids is None else ids
        rows = ids.expand(*ids.shape[:-2], batch, length)
        given = {}
        for name, value in kwargs.items():
            along = isinstance(value, Tensor) and value.ndim >= 2 and value.shape[:2] == (batch, length)
            given[name] = value[row : row + 1, left] if along else value
        # Which visual tokens of the whole batch are left, for features that are added between layers.
        visual = kwargs.get("visual_pos_masks")
        if visual is not None:
            visual = visual[..., 0] if visual.ndim == 3 else visual
            kept = torch.zeros_like(visual)
            kept[row, left] = True
            features = kwargs["deepstack_visual_embeds"]
            chosen = kept[visual]
            given["deepstack_visual_embeds"] = (
                {layer: part[chosen] for layer, part in features.items()}
                if isinstance(features, dict)
                else [part[chosen] for part in features]
            )
        given["position_ids"] = rows[..., row : row + 1, left]
        given["attention_mask"] = self.mask_of(left)
        return args, given

    def mask_of(self, left: Tensor) -> Any:
        """Return the mask of a call of the language model with the columns that are left. Without one, gaps in the
        position IDs would be read as borders between packed sequences."""
        return torch.ones(1, len(left), dtype=torch.long)


def renumber(position_ids: Tensor | None, module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Return a call of the language model with these position IDs, unless they are None."""
    return args, kwargs if position_ids is None else {**kwargs, "position_ids": position_ids}


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Within the block, every decoder layer gets its mask as a tensor."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = before
