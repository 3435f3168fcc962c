"""Ways to generate that a patched model refuses, or that must see its prompt first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import CANDIDATE_GENERATOR, HIDDEN_STATE_GENERATORS
from tokenprune.engine.overrides.override import MethodOverride
from tokenprune.errors import UnsupportedError


class ContinuousBatching(MethodOverride):
    """Refuses continuous batching, which gives the model no images and a cache that cannot be pruned."""

    def override(self, *args: Any, **kwargs: Any) -> Any:
        raise UnsupportedError(
            "a patched model does not support continuous batching (generate_batch): transformers gives it no images, "
            "patched or not. Call generate with a padded batch, or remove the patch."
        )


class AssistedDecoding(MethodOverride):
    """Refuses candidate generators that read the hidden states of a prompt with images, because pruning drops some of
    these states. If the strategy reads the text of the prompt, which candidates would lengthen, none are proposed
    before the model has seen the prompt.

    reads_text: whether the strategy reads the text of the prompt.
    """

    def __init__(self, adapter: ModelAdapter, reads_text: bool) -> None:
        super().__init__(adapter.model, CANDIDATE_GENERATOR)
        self._adapter, self._reads_text = adapter, reads_text

    def override(self, *args: Any, **kwargs: Any) -> Any:
        generator = self.original(*args, **kwargs)
        refused = type(generator).__name__ in HIDDEN_STATE_GENERATORS
        if not refused and not self._reads_text:
            return generator
        call = {**kwargs["model_kwargs"], "input_ids": kwargs["input_ids"]}
        if all(self._adapter.visual_mask(modality, call) is None for modality in self._adapter.modalities):
            return generator
        if refused:
            raise UnsupportedError(
                f"{type(generator).__name__} proposes tokens from the hidden states of the whole prompt, and pruning "
                f"leaves a part of them. Generate without it, or with prompt_lookup_num_tokens or an assistant_model "
                f"that reads tokens only."
            )
        generator.get_candidates = after_prompt(generator.get_candidates)
        return generator


def after_prompt(propose: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function that proposes candidate tokens so that its first proposal, which would follow the prompt, is
    discarded. The function is still called, because an assistant must see the prompt."""
    first = True

    def proposed(input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal first
        found = propose(input_ids, *args, **kwargs)
        if not first:
            return found
        first = False
        return input_ids, None  # how transformers itself says that there are none

    return proposed
