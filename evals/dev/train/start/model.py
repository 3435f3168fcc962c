"""The processor, and an untrained model of a checkpoint's shape."""

from __future__ import annotations

from torch import Tensor
from transformers import Dinov2Model, LlavaForConditionalGeneration, LlavaProcessor

from tokenprune.evals.dev.train.start import llava
from tokenprune.evals.dev.train.vocabulary.nouns import nouns
from tokenprune.evals.dev.train.vocabulary.words import SIGN_WORDS

HEAD = 64
NEW_WORDS = ("sign", "does", "say", "0", "##s", "##es")


def build_processor() -> LlavaProcessor:
    """Return a processor with one token per word. The plural of a noun is the noun and an ending."""
    return llava.build_processor([*NEW_WORDS, *SIGN_WORDS, *(noun.name for noun in nouns())], pieces=True)


def build_like(
    weights: dict[str, Tensor], tower: Dinov2Model, processor: LlavaProcessor
) -> LlavaForConditionalGeneration:
    """Return an untrained model of the same shape as a checkpoint's weights, `saved["trainee"]`."""
    width = weights["lm.embed_tokens.weight"].shape[1]
    return llava.build_model(
        tower,
        processor,
        seed=0,
        hidden_size=width,
        intermediate_size=weights["lm.layers.0.mlp.gate_proj.weight"].shape[0],
        num_hidden_layers=sum(name.endswith("mlp.gate_proj.weight") for name in weights),
        num_attention_heads=width // HEAD,
        num_key_value_heads=width // HEAD,
    )
