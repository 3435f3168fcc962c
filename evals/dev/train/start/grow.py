"""A model grown from version 1: twice the layers, more words, and the same tower and projector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from tokenprune.evals.dev.train.start import llava


def grow(folder: Path, processor: LlavaProcessor, seed: int) -> LlavaForConditionalGeneration:
    """Grow a model. Each decoder layer becomes two: the first keeps the attention, and each gets half of the inner
    units.

    The second layer's attention adds nothing at first. A grown model differs from the old one only in that half of the
    inner units read hidden states to which the other half has already added. New words start as random nouns.

    Raises SystemExit if there is no such folder.
    """
    if not folder.is_dir():
        raise SystemExit(f"{folder} holds no model to grow: give --version-1 the folder of a version 1")
    old: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    shape = old.config.text_config
    model: Any = llava.build_model(
        old.model.vision_tower,
        processor,
        seed,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size // 2,
        num_hidden_layers=2 * shape.num_hidden_layers,
    )
    model.model.multi_modal_projector.load_state_dict(old.model.multi_modal_projector.state_dict())
    ours, theirs = model.model.language_model, old.model.language_model
    ours.norm.load_state_dict(theirs.norm.state_dict())
    for index, layer in enumerate(theirs.layers):
        first, second = ours.layers[2 * index : 2 * index + 2]
        first.self_attn.load_state_dict(layer.self_attn.state_dict())
        first.input_layernorm.load_state_dict(layer.input_layernorm.state_dict())
        nn.init.zeros_(second.self_attn.o_proj.weight)
        for half, added in enumerate((first, second)):
            added.post_attention_layernorm.load_state_dict(layer.post_attention_layernorm.state_dict())
            with torch.no_grad():
                added.mlp.gate_proj.weight.copy_(layer.mlp.gate_proj.weight[half::2])
                added.mlp.up_proj.weight.copy_(layer.mlp.up_proj.weight[half::2])
                added.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, half::2])
    new_ids, old_ids = known_words(folder, processor)
    with torch.no_grad():
        nn.init.normal_(ours.embed_tokens.weight, std=float(theirs.embed_tokens.weight.std()))
        ours.embed_tokens.weight[new_ids] = theirs.embed_tokens.weight[old_ids]
    return model


def known_words(folder: Path, processor: LlavaProcessor) -> tuple[Int[Tensor, " known"], Int[Tensor, " known"]]:
    """Return the token IDs of version 1's words, in the new model and in version 1."""
    old, new = AutoProcessor.from_pretrained(folder).tokenizer.get_vocab(), processor.tokenizer.get_vocab()
    ids = torch.tensor([(index, old[word]) for word, index in new.items() if word in old])
    return ids[:, 0], ids[:, 1]
