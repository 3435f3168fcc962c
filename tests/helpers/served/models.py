"""Tiny models with random weights, saved with processor and tokenizer, as vLLM and transformers load them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

N_WORDS = 80
PATCH = 14
#: How an image is written in a prompt.
IMAGE = "<image>"
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
#: The layers of every tower and of every language model.
N_LAYERS = 3


def tokenizer(*specials: str) -> Any:
    """One token for each of the words `w0`, `w1`, ... and for each special one."""
    words = ["<pad>", "<end>", *specials, *(f"w{i}" for i in range(N_WORDS))]
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=list(specials),
        model_max_length=4096,
    )


def decoder(vocabulary: int, **settings: Any) -> dict[str, Any]:
    """What the configurations of all language models share. vLLM on a CPU wants heads of 32."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
        **settings,
    }


def tower(side: int, **settings: Any) -> dict[str, Any]:
    """What the configurations of square vision towers share; `side` in pixels."""
    return {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": PATCH,
        **settings,
    }


def save(model: nn.Module, processor: Any, folder: Path, rename: Callable[[str], str] = str) -> None:
    """Save a model whose attention is far from uniform."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                std = 0.25 if "embed_tokens" in name or "lm_head" in name else 0.15
                parameter.normal_(std=std, generator=generator)
    assert isinstance(model, transformers.PreTrainedModel)
    model.float().save_pretrained(folder)
    processor.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    save_file({rename(name): one for name, one in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def published_clip_name(name: str) -> str:
    """A weight of a CLIP or SigLIP tower under the name that published LLaVA checkpoints have. transformers loads both
    names, and vLLM only this one."""
    if "vision_tower." in name and "vision_model." not in name:
        return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


def save_llava(folder: Path, kind: str = "clip", side: int = 6 * PATCH, **settings: Any) -> None:
    """LLaVA-1.5 with 6 x 6 visual tokens."""
    words = tokenizer(IMAGE)
    towers = {"clip": transformers.CLIPVisionConfig, "siglip": transformers.SiglipVisionConfig}
    text = transformers.LlamaConfig(**decoder(len(words), **settings))
    strategy = "full" if kind == "siglip" else "default"
    config = transformers.LlavaConfig(
        vision_config=towers[kind](**tower(side)),
        text_config=text,
        image_token_index=words.convert_tokens_to_ids(IMAGE),
        vision_feature_select_strategy=strategy,
        image_seq_length=(side // PATCH) ** 2,
    )
    images = transformers.CLIPImageProcessor(
        size={"height": side, "width": side}, crop_size={"height": side, "width": side}, do_center_crop=False
    )
    processor = transformers.LlavaProcessor(
        image_processor=images,
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(kind == "clip"),
        image_token=IMAGE,
        chat_template=CHAT.replace("IMAGE", IMAGE),
    )
    save(transformers.LlavaForConditionalGeneration(config), processor, folder, published_clip_name)


#: Messages in a row, without roles.
CHAT = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %} IMAGE {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} {% endfor %}"
)
