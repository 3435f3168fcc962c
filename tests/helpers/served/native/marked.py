"""Tiny models with markers between the visual tokens of an image, saved as vLLM and transformers load them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import transformers

from helpers.served.family import Family, Far
from helpers.served.models import CHAT, IMAGE, PATCH, decoder, published_tower, save, tokenizer, tower

MISTRAL_IMAGE = "[IMG]"
LLAMA_IMAGE = "<|image|>"
LLAMA_VISUAL = "<|patch|>"
COHERE_IMAGE = "<|IMG_PATCH|>"


def save_mistral3(folder: Path, text: str = "Mistral", **settings: Any) -> None:
    """Mistral 3 with up to 12 x 12 visual tokens of 2 x 2 patches, and a language model of the class that `text`
    begins."""
    side, words = 24 * PATCH, tokenizer(MISTRAL_IMAGE, "[IMG_BREAK]", "[IMG_END]")
    config = transformers.Mistral3Config(
        vision_config=transformers.PixtralVisionConfig(**tower(side)),
        text_config=getattr(transformers, f"{text}Config")(**decoder(len(words), **settings), sliding_window=None),
        image_token_index=words.convert_tokens_to_ids(MISTRAL_IMAGE),
        spatial_merge_size=2,
    )
    processor = transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(size={"longest_edge": side}, patch_size=PATCH),
        tokenizer=words,
        patch_size=PATCH,
        spatial_merge_size=2,
        chat_template=CHAT.replace("IMAGE", MISTRAL_IMAGE),
    )
    save(transformers.Mistral3ForConditionalGeneration(config), processor, folder)


def save_idefics3(folder: Path, kind: str, **settings: Any) -> None:
    """Idefics 3 or SmolVLM, `kind` as in its model_type: up to four tiles of 3 x 3 visual tokens, and an overview."""
    side = 6 * PATCH
    headers = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    words = tokenizer(IMAGE, "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<video>", *headers)
    name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[kind]
    config = getattr(transformers, f"{name}Config")(
        vision_config=getattr(transformers, f"{name}VisionConfig")(**tower(side)),
        text_config=transformers.LlamaConfig(**decoder(len(words), **settings)),
        image_token_id=words.convert_tokens_to_ids(IMAGE),
        pad_token_id=0,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    sizes = {"size": {"longest_edge": 2 * side}, "max_image_size": {"longest_edge": side}}
    videos = {"video_processor": transformers.SmolVLMVideoProcessor(**sizes)} if kind == "smolvlm" else {}
    processor = getattr(transformers, f"{name}Processor")(
        image_processor=getattr(transformers, f"{name}ImageProcessor")(**sizes),
        tokenizer=words,
        image_seq_len=9,
        chat_template=CHAT.replace("IMAGE", IMAGE),
        **videos,
    )
    save(getattr(transformers, f"{name}ForConditionalGeneration")(config), processor, folder)


def save_llama4(folder: Path, chunk: int = 4096, **settings: Any) -> None:
    """Llama 4 with up to four tiles of 3 x 3 visual tokens, and an overview. One of three decoder layers has no chunks,
    does not rotate, and has experts."""
    side, ends = 6 * PATCH, ("<|image_start|>", "<|image_end|>")
    words = tokenizer(LLAMA_IMAGE, LLAMA_VISUAL, *ends, "<|tile_x_separator|>", "<|tile_y_separator|>")
    text = decoder(len(words), intermediate_size_mlp=96, attention_chunk_size=chunk, **settings)
    text |= {"no_rope_layers": [1, 0, 1], "interleave_moe_layer_step": 2, "num_local_experts": 4}
    vision = tower(side, vision_output_dim=64, projector_input_dim=64, projector_output_dim=64)
    start, end = words.convert_tokens_to_ids(list(ends))
    config = transformers.Llama4Config(
        vision_config={**vision, "intermediate_size": 4 * 64},
        text_config=text,
        image_token_index=words.convert_tokens_to_ids(LLAMA_VISUAL),
        boi_token_index=start,
        eoi_token_index=end,
    )
    processor = transformers.Llama4Processor(
        image_processor=transformers.Llama4ImageProcessor(size={"height": side, "width": side}, max_patches=4),
        tokenizer=words,
        patch_size=PATCH,
        chat_template=CHAT.replace("IMAGE", LLAMA_IMAGE),
    )
    save(transformers.Llama4ForConditionalGeneration(config), processor, folder)


def save_cohere2_vision(folder: Path, window: int = 4096, **settings: Any) -> None:
    """Cohere 2 Vision with up to four tiles of 3 x 3 visual tokens, and an overview after them. One of three decoder
    layers has no window, and does not rotate."""
    side = 6 * PATCH
    words = tokenizer(
        boi_token="<|START_OF_IMG|>",
        eoi_token="<|END_OF_IMG|>",
        image_token=COHERE_IMAGE,
        img_line_break_token="<|IMG_LINE_BREAK|>",
    )
    text = transformers.Cohere2Config(
        **decoder(len(words), **settings),
        sliding_window=window,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        logit_scale=1.0,
    )
    config = transformers.Cohere2VisionConfig(
        vision_config=transformers.SiglipVisionConfig(**tower(side, vision_use_head=False)),
        text_config=text,
        image_token_id=words.convert_tokens_to_ids(COHERE_IMAGE),
        alignment_intermediate_size=96,
    )
    sizes = {"size": {"height": side, "width": side}, "max_patches": 4, "patch_size": 3}  # in visual tokens
    processor = transformers.Cohere2VisionProcessor(
        image_processor=transformers.Cohere2VisionImageProcessor(**sizes),
        tokenizer=words,
        chat_template=CHAT.replace("IMAGE", COHERE_IMAGE),
    )
    save(transformers.Cohere2VisionForConditionalGeneration(config), processor, folder, published_tower)


FAMILIES = (
    Family("mistral3", "TokenPruneMistral3", save_mistral3, MISTRAL_IMAGE, far=Far(256, 8, (196, 196))),
    Family("idefics3", "TokenPruneIdefics3", partial(save_idefics3, kind="idefics3")),
    Family("smolvlm", "TokenPruneSmolVLM", partial(save_idefics3, kind="smolvlm")),
    Family("llama4", "TokenPruneLlama4", save_llama4, LLAMA_IMAGE, visual_token=LLAMA_VISUAL, n_blocks=30),
    Family("cohere2_vision", "TokenPruneCohere2Vision", save_cohere2_vision, COHERE_IMAGE, n_blocks=30),
)
