"""Greedy answers, unless the model computes NaN."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from tokenprune.errors import UnsupportedError

#: Arguments of `generate`. A checkpoint's generation config may ask for beams, which would be more rows than the batch.
GREEDY: dict[str, Any] = {"do_sample": False, "num_beams": 1}
#: Settings with which greedy answers are still the most probable tokens.
HARMLESS = frozenset(
    {
        *GREEDY,
        *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens", "max_tokens"),
        *("temperature", "top_p", "top_k", "min_p"),
        *("use_cache", "transformers_version", "_from_model_config"),
    }
)
#: Settings in which 1 has no effect. A falsy value never has any.
FACTORS = frozenset({"num_return_sequences", "repetition_penalty", "length_penalty", "guidance_scale"})


def decisive_settings(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a generation config that make greedy answers other than the most probable tokens."""
    return {
        name: value
        for name, value in generation.items()
        if value and name not in HARMLESS and not (name in FACTORS and value == 1)
    }


def generate_greedily(model: Any, inputs: Any, max_new_tokens: int) -> torch.Tensor:
    """Return the token IDs of prompts and answers.

    UnsupportedError if a first token's logits are NaN: `generate` would choose a token anyway, and the answer would
    count as wrong.
    """
    processors = LogitsProcessorList([FirstLogits()])
    return model.generate(**inputs, **GREEDY, max_new_tokens=max_new_tokens, logits_processor=processors)


class FirstLogits(LogitsProcessor):
    """Raises UnsupportedError for NaN. Checks only an answer's first token: if numbers overflow, they already do in the
    prompt."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self.seen:
            check_logits(scores)
        self.seen = True
        return scores


def check_logits(logits: torch.Tensor) -> None:
    """Raise UnsupportedError for NaN."""
    if bool(logits.isnan().any()):
        raise UnsupportedError(
            "the model computes NaN instead of logits, most likely because float16 cannot hold its numbers. Load it "
            "in another dtype: --dtype bfloat16 or float32."
        )
