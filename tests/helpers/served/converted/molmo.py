"""A tiny Molmo 2 in its authors' format, and the same model in a class of the tests' own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.served.converted.molmo_images import (
    COLUMN,
    CROP,
    END,
    INSIDE,
    MOLMO_IMAGE,
    MOLMO_VISUAL,
    SMALL_START,
    START,
)
from helpers.served.models import CHAT, N_LAYERS, PATCH, WORDS, decoder, save, tokenizer, tower
from helpers.served.reference import CONVERTED

ROPE = 1e4
#: Mark -> its name in a config. vLLM reads all of them.
MARKS = {
    "image_start_token_id": START,
    "low_res_image_start_token_id": SMALL_START,
    "image_end_token_id": END,
    "image_low_res_id": "<im_low>",
    "image_patch_id": MOLMO_VISUAL,
    "image_col_id": COLUMN,
    "frame_start_token_id": "<frame_start>",
    "frame_end_token_id": "<frame_end>",
}
#: Code in published checkpoints.
CONFIGURATION = """from transformers import PreTrainedConfig


class Molmo2TextConfig(PreTrainedConfig):
    model_type = "molmo2_text"

    def __init__(self, rope_theta=None, **settings):
        super().__init__(**settings)
        self.rope_theta = rope_theta
        self.rope_parameters = {"rope_type": "default", "rope_theta": rope_theta}


class Molmo2Config(PreTrainedConfig):
    model_type = "molmo2"

    def __init__(self, vit_config=None, adapter_config=None, text_config=None, **settings):
        super().__init__(**settings)
        self.vit_config = PreTrainedConfig(**(vit_config or {}))
        self.adapter_config = PreTrainedConfig(**(adapter_config or {}))
        self.text_config = Molmo2TextConfig(**(text_config or {}))
"""
PROCESSING = "from helpers.served.converted.molmo_images import Molmo2Processor as Molmo2Processor\n"
#: Parts of names in the tests' model -> in published checkpoints.
RENAMED = {
    r"\.vision_tower\.layers\.": ".vision_backbone.image_vit.transformer.resblocks.",
    r"\.vision_tower\.": ".vision_backbone.image_vit.",
    r"(resblocks.*)\.self_attn\.([qkv])_proj\.": r"\1.attention.w\2.",
    r"(resblocks.*)\.self_attn\.out_proj\.": r"\1.attention.wo.",
    r"(resblocks.*)\.layer_norm1\.": r"\1.attention_norm.",
    r"(resblocks.*)\.layer_norm2\.": r"\1.ffn_norm.",
    r"(resblocks.*)\.mlp\.fc": r"\1.feed_forward.w",
    r"\.multi_modal_projector\.queries\.": ".vision_backbone.image_pooling_2d.wq.",
    r"\.multi_modal_projector\.keys\.": ".vision_backbone.image_pooling_2d.wk.",
    r"\.multi_modal_projector\.values\.": ".vision_backbone.image_pooling_2d.wv.",
    r"\.multi_modal_projector\.output\.": ".vision_backbone.image_pooling_2d.wo.",
    r"\.multi_modal_projector\.gate\.": ".vision_backbone.image_projector.w1.",
    r"\.multi_modal_projector\.down\.": ".vision_backbone.image_projector.w2.",
    r"\.multi_modal_projector\.up\.": ".vision_backbone.image_projector.w3.",
    r"\.language_model\.layers\.": ".transformer.blocks.",
    r"\.language_model\.norm\.": ".transformer.ln_f.",
    r"(blocks.*)\.o_proj\.": r"\1.attn_out.",
    r"(blocks.*)\.down_proj\.": r"\1.ff_out.",
    r"(blocks.*)\.input_layernorm\.": r"\1.attn_norm.",
    r"(blocks.*)\.post_attention_layernorm\.": r"\1.ff_norm.",
}


def save_molmo2(folder: Path, **settings: Any) -> None:
    """Molmo 2 with up to four crops and a small version of an image. As in published checkpoints, its config has one
    tower layer more than exist, four instead of three."""
    from helpers.served.converted.molmo_model import Molmo2ForConditionalGeneration

    words = tokenizer(*WORDS, *INSIDE, MOLMO_IMAGE, "<|video|>")
    ids = {name: words.convert_tokens_to_ids(token) for name, token in MARKS.items()}
    n_words, side = words.convert_tokens_to_ids(INSIDE[0]), CROP * PATCH
    text = decoder(n_words, tie_word_embeddings=False, **settings)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "hidden_size": 64}
    adapter = {**heads, "intermediate_size": 96, "text_hidden_size": 64, "hidden_act": "silu"}
    vision = tower(side, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
    more: dict[str, Any] = {"adapter_config": {**adapter, "vision_feature_layer": [2, 0]}, "n_words": n_words}
    more |= {"video_token_id": ids["image_patch_id"], "attn_implementation": "sdpa"}
    config: Any = transformers.LlavaConfig(
        vision_config=transformers.SiglipVisionConfig(**vision),
        text_config=transformers.Qwen3Config(
            **{**text, "vocab_size": len(words), "rope_parameters": {"rope_type": "default", "rope_theta": ROPE}}
        ),
        image_token_index=ids["image_patch_id"],
        **more,
    )
    model = Molmo2ForConditionalGeneration(config)
    save(model, words, folder / CONVERTED)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    # vLLM replaces this embedding by an image's features, transformers adds them to it.
    weights["model.language_model.embed_tokens.weight"][ids["image_patch_id"]] = 0
    save_file(weights, folder / CONVERTED / "model.safetensors", {"format": "pt"})  # instead of LLaVA's names
    save_file(published(weights, n_words), folder / "model.safetensors", {"format": "pt"})
    words.chat_template = CHAT.replace("IMAGE", MOLMO_IMAGE)
    words.save_pretrained(folder)
    code = {"AutoConfig": "configuration_molmo2.Molmo2Config", "AutoProcessor": "processing_molmo2.Molmo2Processor"}
    theirs = {"hidden_act": "silu", "layer_norm_eps": text.get("rms_norm_eps", 1e-6), "norm_after": False}
    theirs |= {"use_qk_norm": True, "qk_norm_type": "qwen3", "qkv_bias": False, "rope_scaling_layers": None}
    theirs |= {"additional_vocab_size": len(words) - n_words, "rope_theta": ROPE, "model_type": "molmo2_text"}
    tower_config = {**heads, "num_hidden_layers": N_LAYERS + 1, "image_default_input_size": [side, side]}
    tower_config |= {"image_patch_size": PATCH, "image_num_pos": CROP**2, "intermediate_size": 96}
    tower_config |= {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
    written = {"architectures": ["Molmo2ForConditionalGeneration"], "model_type": "molmo2", "auto_map": code, **ids}
    written |= {"vit_config": tower_config, "text_config": {**text, **theirs}, "torch_dtype": "float32"}
    written |= {"adapter_config": {**adapter, "vit_layers": [-2, -4], "pooling_attention_mask": True}}
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "processor_config.json").write_text(json.dumps({"auto_map": code}))
    (folder / "configuration_molmo2.py").write_text(CONFIGURATION)
    (folder / "processing_molmo2.py").write_text(PROCESSING)


def published(weights: dict[str, Tensor], n_words: int) -> dict[str, Tensor]:
    """Return the weights of the tests' model as published, where some are joined and others split."""
    left, found = dict(weights), {}
    embedding = left.pop("model.language_model.embed_tokens.weight")
    found["model.transformer.wte.embedding"] = embedding[:n_words].contiguous()
    found["model.transformer.wte.new_embedding"] = embedding[n_words:].contiguous()
    for number in range(N_LAYERS):
        ours, theirs = f"model.language_model.layers.{number}", f"model.transformer.blocks.{number}"
        projections = [left.pop(f"{ours}.self_attn.{one}_proj.weight") for one in "qkv"]
        found[f"{theirs}.self_attn.att_proj.weight"] = torch.cat(projections)
        inner = [left.pop(f"{ours}.mlp.{one}_proj.weight") for one in ("up", "gate")]
        found[f"{theirs}.mlp.ff_proj.weight"] = torch.cat(inner)
    return {**found, **{renamed(name): weight for name, weight in left.items()}}


def renamed(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def load_molmo2(folder: Path) -> tuple[Any, Any]:
    """Return the tests' own model of a checkpoint, and the stand-in for its processor."""
    from helpers.served.converted.molmo_images import Molmo2Processor
    from helpers.served.converted.molmo_model import Molmo2ForConditionalGeneration

    config = transformers.LlavaConfig.from_pretrained(folder / CONVERTED, attn_implementation="sdpa")
    model: Any = Molmo2ForConditionalGeneration(config)
    model.load_state_dict(load_file(folder / CONVERTED / "model.safetensors"))
    words = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return model.eval(), Molmo2Processor(words)
