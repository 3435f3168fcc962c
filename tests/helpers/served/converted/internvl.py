"""A tiny InternVL in its authors' format and a tiny Intern-S1, which transformers cannot load, with the same models as
InternVL in transformers' format; and a tiny Qianfan-OCR, which both load as published."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.served.models import CHAT, INTERN_IMAGE, PATCH, decoder, save, save_internvl, tokenizer, tower
from helpers.served.reference import CONVERTED

#: An image in a prompt; vLLM writes INTERN_IMAGE for each of its visual tokens.
CHAT_IMAGE = "<image>"
#: Engine options: the checkpoint contains code.
CHAT_OPTIONS = {"trust_remote_code": True}
SIDE = 6 * PATCH
#: Added to the vocabulary, because vLLM writes videos with it.
FOR_VIDEOS = "<|video_pad|>"
#: How images become tiles and visual tokens.
TILING = {
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": SIDE,
    "max_dynamic_patch": 4,
    "min_dynamic_patch": 1,
    "ps_version": "v2",
    "select_layer": -1,
    "use_thumbnail": True,
}
#: Code in published checkpoints, because transformers knows neither type.
CONFIGURATION = """from transformers import AutoConfig, PreTrainedConfig


class InternVisionConfig(PreTrainedConfig):
    model_type = "intern_vit_6b"


class InternVLChatConfig(PreTrainedConfig):
    model_type = "internvl_chat"

    def __init__(self, vision_config=None, llm_config=None, **settings):
        super().__init__(**settings)
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        self.llm_config = AutoConfig.for_model(**(llm_config or {"model_type": "qwen2"}))
"""
INTERNS1 = """from transformers import AutoConfig, InternVLVisionConfig, PreTrainedConfig


class InternS1VisionConfig(InternVLVisionConfig):
    model_type = "interns1_vision"


class InternS1Config(PreTrainedConfig):
    model_type = "interns1"

    def __init__(self, vision_config=None, text_config=None, **settings):
        super().__init__(**settings)
        self.vision_config = InternS1VisionConfig(**(vision_config or {}))
        self.text_config = AutoConfig.for_model(**(text_config or {"model_type": "qwen3"}))
"""
#: Parts of names in transformers' format, and in the authors'.
RENAMED = {
    r"^language_model\.lm_head": "language_model.lm_head",
    r"^vision_tower\.embeddings\.cls_token": "vision_model.embeddings.class_embedding",
    r"^vision_tower\.embeddings\.patch_embeddings\.projection": "vision_model.embeddings.patch_embedding",
    r"^vision_tower\.embeddings\.position_embeddings": "vision_model.embeddings.position_embedding",
    r"^vision_tower\.encoder\.layer\.": "vision_model.encoder.layers.",
    r"\.attention\.projection_layer": ".attn.proj",
    r"\.attention\.([qk]_norm)": r".attn.\1",
    r"\.lambda_": ".ls",
    r"\.layernorm_before": ".norm1",
    r"\.layernorm_after": ".norm2",
    r"^multi_modal_projector\.layer_norm": "mlp1.0",
    r"^multi_modal_projector\.linear_1": "mlp1.1",
    r"^multi_modal_projector\.linear_2": "mlp1.3",
}
QUERIES = ".attention.q_proj."


def words_with(context: str, *more: str) -> Any:
    """Return a tokenizer whose visual token is `context`, at the same place in the vocabulary, with `more` at the
    end."""
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": context}
    words = tokenizer(**named, video_token="<video>")
    words.add_special_tokens({"additional_special_tokens": list(more)})
    return words


def save_internvl_chat(folder: Path, large: bool = False, **settings: Any) -> None:
    """InternVL with tiles of 3 x 3 visual tokens, up to four and an overview. large: whether the layers of its tower
    are those of InternViT-6B."""
    words = words_with(CHAT_IMAGE)  # a visual token for transformers is an image for vLLM
    layers = {"norm_type": "rms_norm", "use_qk_norm": True} if large else {"attention_bias": True}
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(**tower(SIDE, **layers)),
        text_config=transformers.Qwen2Config(**decoder(len(words) + 2, **settings)),
        image_token_id=words.convert_tokens_to_ids(CHAT_IMAGE),
        image_seq_length=9,
        tie_word_embeddings=False,
    )
    processor = transformers.InternVLProcessor(
        image_processor=tiles(),
        tokenizer=words,
        video_processor=transformers.InternVLVideoProcessor(size={"height": SIDE, "width": SIDE}),
        image_seq_length=9,
    )
    save(transformers.InternVLForConditionalGeneration(config), processor, folder / CONVERTED)
    theirs = words_with(INTERN_IMAGE, CHAT_IMAGE, FOR_VIDEOS)
    theirs.chat_template = CHAT.replace("IMAGE", CHAT_IMAGE)
    theirs.save_pretrained(folder)
    weights = in_their_format(load_file(folder / CONVERTED / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "configuration_internvl_chat.py").write_text(CONFIGURATION)
    (folder / "config.json").write_text(json.dumps(their_config(config)))


def save_interns1(folder: Path, **settings: Any) -> None:
    """Intern-S1 with the same tiles."""
    save_internvl(folder, **settings)
    shutil.copytree(folder, folder / CONVERTED)
    file = folder / "config.json"
    written = json.loads(file.read_text())
    names = {"architectures": ["InternS1ForConditionalGeneration"], "model_type": "interns1"}
    code = {"auto_map": {"AutoConfig": "configuration_interns1.InternS1Config"}}
    vision = {**written["vision_config"], "model_type": "interns1_vision"}
    file.write_text(json.dumps({**written, **names, **code, "vision_config": vision}))
    (folder / "configuration_interns1.py").write_text(INTERNS1)


def save_qianfan_ocr(folder: Path, **settings: Any) -> None:
    """Qianfan-OCR with the same tiles."""
    words = words_with(INTERN_IMAGE, CHAT_IMAGE)
    config = transformers.QianfanOCRConfig(
        vision_config=transformers.QianfanOCRVisionConfig(**tower(SIDE)),
        text_config=transformers.Qwen3Config(**decoder(len(words), **settings)),
        image_token_id=words.convert_tokens_to_ids(INTERN_IMAGE),
        image_seq_length=9,
    )
    processor = transformers.QianfanOCRProcessor(
        image_processor=tiles(),
        tokenizer=words,
        image_seq_length=9,
        chat_template=CHAT.replace("IMAGE", CHAT_IMAGE),
    )
    save(transformers.QianfanOCRForConditionalGeneration(config), processor, folder, published_layers)
    file = folder / "config.json"
    written = json.loads(file.read_text())
    vision = {**written["vision_config"], **their_tower(config.vision_config)}
    file.write_text(json.dumps({**written, **TILING, "vision_config": vision}))


def published_layers(name: str, weight: Tensor) -> tuple[str, Tensor]:
    """Rename the decoder's layers, which transformers 5.19 saves as if they were the tower's."""
    return name.replace("language_model.model.encoder.", "language_model.model."), weight


def tiles() -> Any:
    return transformers.GotOcr2ImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        crop_to_patches=True,
        max_patches=TILING["max_dynamic_patch"],
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def their_config(config: Any) -> dict[str, Any]:
    """Return a config.json with the names of published ones."""
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "vision_config": {"model_type": "intern_vit_6b", **their_tower(config.vision_config)},
        "llm_config": {**config.text_config.to_dict(), "architectures": ["Qwen2ForCausalLM"]},
        "torch_dtype": "float32",
        **TILING,
    }


def their_tower(vision: Any) -> dict[str, Any]:
    same = ("hidden_act", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "norm_type")
    return {
        **{name: getattr(vision, name) for name in (*same, "layer_norm_eps", "num_channels")},
        "image_size": SIDE,
        "patch_size": PATCH,
        "qkv_bias": vision.attention_bias,
        "qk_normalization": vision.use_qk_norm,
        "initializer_factor": 0.1,
    }


def in_their_format(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a model in transformers' format under the authors' names."""
    found = {}
    for name, weight in weights.items():
        if QUERIES in name:
            parts = [weights[name.replace(QUERIES, f".attention.{part}_proj.")] for part in "qkv"]
            found[renamed(name).replace(QUERIES, ".attn.qkv.")] = torch.cat(parts)
        elif not re.search(r"\.attention\.[kv]_proj\.", name):
            found[renamed(name)] = weight
    return found


def renamed(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name
