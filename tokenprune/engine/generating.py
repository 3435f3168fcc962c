"""Ways to generate that a patched model refuses, or to which it shows the prompt first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import HIDDEN_STATE_GENERATORS
from tokenprune.errors import UnsupportedError


def refuse_continuous_batching(*args: Any, **kwargs: Any) -> Any:
    """Continuous batching gives the model no images and a cache that cannot be pruned."""
    raise UnsupportedError(
        "a patched model does not support continuous batching (generate_batch): transformers gives it no images, "
        "patched or not. Call generate with a padded batch, or remove the patch."
    )


def candidate_generator(
    adapter: ModelAdapter, reads_text: bool, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """The candidate generator of assisted decoding, which the `original` method makes. Refuses those that read the
    hidden states of a prompt with images, because pruning drops some of these states. If the strategy reads the text of
    the prompt, which candidates would lengthen, none are proposed before the model has seen the prompt.

    reads_text: whether the strategy reads the text of the prompt.
    """
    generator = original(*args, **kwargs)
    refused = type(generator).__name__ in HIDDEN_STATE_GENERATORS
    if not refused and not reads_text:
        return generator
    call = {**kwargs["model_kwargs"], "input_ids": kwargs["input_ids"]}
    if all(adapter.visual_mask(modality, call) is None for modality in adapter.modalities):
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
        candidates = propose(input_ids, *args, **kwargs)
        if not first:
            return candidates
        first = False
        return input_ids, None  # how transformers itself says that there are none

    return proposed
