"""Version 2's processor and untrained model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Dinov2Model, LlavaForConditionalGeneration, LlavaProcessor

from tokenprune.evals.dev.train import checkpoint
from tokenprune.evals.dev.train.v2.scenes.nouns import nouns
from tokenprune.evals.dev.train.v2.scenes.words import SIGN_WORDS

LAYERS, WIDTH, INNER, HEAD = 12, 384, 1024, 64
NEW_WORDS = ("sign", "does", "say", "0", "##s", "##es")


def build_processor() -> LlavaProcessor:
    """One token a word; the plural of a noun is the noun and an ending."""
    return checkpoint.build_processor([*NEW_WORDS, *SIGN_WORDS, *(noun.name for noun in nouns())], pieces=True)


def build_model(
    tower: Dinov2Model, processor: LlavaProcessor, seed: int, layers: int = LAYERS, width: int = WIDTH
) -> LlavaForConditionalGeneration:
    """A language model from nothing; what its blocks add is scaled down with their number, as in GPT-2."""
    model = checkpoint.build_model(
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


def standardise(projector: Any, features: torch.Tensor) -> None:
    """Start the projector on features of mean 0 and deviation 1; raw DINOv2 features have a few huge channels."""
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    first, second = projector.linear_1, projector.linear_2
    with torch.no_grad():
        nn.init.normal_(first.weight, std=first.in_features**-0.5)
        first.weight /= deviation
        first.bias.copy_(-first.weight @ mean)
        nn.init.normal_(second.weight, std=0.04 * (512 / second.in_features) ** 0.5)
        second.bias.zero_()
