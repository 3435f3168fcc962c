"""The processor, and an untrained model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Dinov2Model, LlavaForConditionalGeneration, LlavaProcessor

from tokenprune.evals.dev.train.start import llava
from tokenprune.evals.dev.train.vocabulary.nouns import nouns
from tokenprune.evals.dev.train.vocabulary.words import SIGN_WORDS

LAYERS, WIDTH, INNER, HEAD = 12, 384, 1024, 64
NEW_WORDS = ("sign", "does", "say", "0", "##s", "##es")


def build_processor() -> LlavaProcessor:
    """Return a processor with one token per word. The plural of a noun is the noun and an ending."""
    return llava.build_processor([*NEW_WORDS, *SIGN_WORDS, *(noun.name for noun in nouns())], pieces=True)


def build_model(
    tower: Dinov2Model, processor: LlavaProcessor, seed: int, layers: int = LAYERS, width: int = WIDTH
) -> LlavaForConditionalGeneration:
    """Return an untrained language model. The output of its blocks is scaled down with their number, as in GPT-2."""
    model = llava.build_model(
        tower,
        processor,
        seed,
        hidden_size=width,
        intermediate_size=INNER * width // WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        num_key_value_heads=width // HEAD,
    )
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            for added in (layer.self_attn.o_proj, layer.mlp.down_proj):
                added.weight /= (2 * layers) ** 0.5
    return model


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


def standardise(projector: Any, features: torch.Tensor) -> None:
    """Make the projector standardise features to mean 0 and deviation 1: raw DINOv2 features have a few huge
    channels."""
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    first, second = projector.linear_1, projector.linear_2
    with torch.no_grad():
        nn.init.normal_(first.weight, std=first.in_features**-0.5)
        first.weight /= deviation
        first.bias.copy_(-first.weight @ mean)
        nn.init.normal_(second.weight, std=0.04 * (512 / second.in_features) ** 0.5)
        second.bias.zero_()
