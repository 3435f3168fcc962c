"""A tokenizer of whole words, a processor and an untrained `LlavaForConditionalGeneration`, and how both are stored."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    Dinov2Model,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from tokenprune.evals.dev.train.start.dinov2 import PATCH

SIDE = 224  # px; the processor resizes every image to this by default
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
QUESTION_WORDS = [
    "user",
    "assistant",
    ":",
    "?",
    ",",
    ".",
    "the",
    "a",
    "an",
    "is",
    "are",
    "there",
    "where",
    "what",
    "which",
    "how",
    "many",
    "on",
    "at",
    "in",
    "of",
    "or",
    "and",
    "color",
    "this",
    "objects",
    "left",
    "right",
    "top",
    "bottom",
    "above",
    "below",
    "larger",
    "smaller",
    "yes",
    "no",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "black",
    "white",
    "gray",
    "red",
    "orange",
    "brown",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ ' ' if message['role'] == 'user' else '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_processor(known: Sequence[str], *, pieces: bool = False) -> LlavaProcessor:
    """Return a processor with one token per word, in lower case: 100 two-digit numbers for box edges, and the `known`
    words. With `pieces`, also words made of them and of endings that start with "##". Images are squashed to 224 x 224
    px."""
    words = [*SPECIAL, *(f"{n:02d}" for n in range(100)), *QUESTION_WORDS]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*words, *known]))}
    kind = models.WordPiece if pieces else models.WordLevel
    tokenizer = Tokenizer(kind(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")  # puts one space between words, and none before punctuation
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=2048,
    )
    pictures = CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=fast,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    tower: Dinov2Model, processor: LlavaProcessor, seed: int, **language: Any
) -> LlavaForConditionalGeneration:
    """Return the given tower, frozen, with a new projector and a new language model of six layers, or as `language`
    says.

    rope_theta makes one rotary frequency complete a turn in 16 positions, a row of the grid: theta ** (-4 / 32) =
    2 pi / 16. Nothing else depends on the shape of the grid.
    """
    torch.manual_seed(seed)
    ids = processor.tokenizer.convert_tokens_to_ids
    special: dict[str, Any] = {"bos_token_id": ids("<s>"), "eos_token_id": ids("</s>"), "pad_token_id": ids("<pad>")}
    shape = {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": (16 / (2 * torch.pi)) ** 8},
        "initializer_range": 0.04,
    }
    text = LlamaConfig(
        **(shape | language),
        vocab_size=len(processor.tokenizer),
        max_position_embeddings=2048,
        **special,
        tie_word_embeddings=True,
    )
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text,
        image_token_index=ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **special,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    model.generation_config.eos_token_id = ids("</s>")
    model.generation_config.pad_token_id = ids("<pad>")
    model.generation_config.max_new_tokens = 16
    return model


def export(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write the model in fp16 and its processor in Hugging Face's own layout."""
    model.config.prompt_style = "bundled"  # the prompt style that evals use for it
    copy.deepcopy(model).half().save_pretrained(folder)
    processor.save_pretrained(folder)
