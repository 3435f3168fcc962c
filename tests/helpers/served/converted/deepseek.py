"""A tiny DeepSeek-OCR, DeepSeek-OCR 2 and Unlimited-OCR in their authors' format, and the same models as some of the
tests' own."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from helpers.served.models import CHAT, IMAGE, N_LAYERS, PATCH, decoder, tokenizer, tower
from helpers.served.reference import CONVERTED

#: The sides of a whole image and of a crop in pixels: 4 x 4 and 2 x 2 visual tokens.
WHOLE, CROP = 256, 128
#: The number of visual tokens of a whole image and of a crop in DeepSeek-OCR 2.
N_WHOLE, N_CROP = 16, 4
#: Channels of the first encoder's convolutions. vLLM's code fixes the first two.
CHANNELS = [256, 512, 64]
#: The first encoder. Its first layer attends within windows of 6 x 6 patches, its second to the whole image.
SAM = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 1.5, "window_size": 6}
GLOBAL_LAYERS = (1,)
#: The second encoder, and that of DeepSeek-OCR 2, whose number of layers no config says.
CLIP = tower(4 * PATCH, projection_dim=64, layer_norm_eps=1e-5)
QWEN2: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 24}
QWEN2 |= {"num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6}
#: Parts of names in the tests' models -> in published checkpoints.
RENAMED = {
    r"\.vision_tower\.sam_encoder\.patch_embed\.projection\.": ".sam_model.patch_embed.proj.",
    r"\.vision_tower\.sam_encoder\.layers\.(\d+)\.layer_norm": r".sam_model.blocks.\1.norm",
    r"\.vision_tower\.sam_encoder\.layers\.": ".sam_model.blocks.",
    r"\.vision_tower\.sam_encoder\.neck\.conv1\.": ".sam_model.neck.0.",
    r"\.vision_tower\.sam_encoder\.neck\.layer_norm1\.": ".sam_model.neck.1.",
    r"\.vision_tower\.sam_encoder\.neck\.conv2\.": ".sam_model.neck.2.",
    r"\.vision_tower\.sam_encoder\.neck\.layer_norm2\.": ".sam_model.neck.3.",
    r"\.vision_tower\.sam_encoder\.proj\.conv1\.": ".sam_model.net_2.",
    r"\.vision_tower\.sam_encoder\.proj\.conv2\.": ".sam_model.net_3.",
    r"\.vision_tower\.sam_encoder\.": ".sam_model.",
    r"\.vision_tower\.vision_encoder\.encoder\.": ".vision_model.transformer.",
    r"\.vision_tower\.vision_encoder\.pre_layrnorm\.": ".vision_model.pre_layrnorm.",
    r"\.vision_tower\.vision_encoder\.(layers|norm)\.": r".qwen2_model.model.model.\1.",
    r"\.vision_tower\.vision_encoder\.": ".vision_model.embeddings.",
    r"\.vision_tower\.query_(\d+)_resolution\.": r".qwen2_model.query_\1.",
    r"\.multi_modal_projector\.": ".projector.layers.",
    r"\.view_separator": ".view_seperator",
    r"\.language_model\.": ".",
}
#: Kind -> the name and the type in published configs.
NAMES = {
    "ocr": ("DeepseekOCRForCausalLM", "deepseek_vl_v2"),
    "ocr2": ("DeepseekOCR2ForCausalLM", "deepseek_vl_v2"),
    "unlimited": ("UnlimitedOCRForCausalLM", "unlimited-ocr"),
}
ROPE = {"rope_type": "default", "rope_theta": 1e4}


def text_settings(n_words: int, **settings: Any) -> dict[str, Any]:
    """Return those of a language model, two of whose three layers have experts."""
    experts = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    return decoder(n_words, **experts, n_group=1, topk_group=1, topk_method="greedy", **settings)


def own_model(kind: str, n_words: int, image: int, **settings: Any) -> Any:
    """Return the tests' own model."""
    from transformers.models.deepseek_ocr2.configuration_deepseek_ocr2 import (
        DeepseekOcr2SamVisionConfig,
        DeepseekOcr2VisionEncoderConfig,
    )

    from helpers.served.converted.deepseek_model import (
        SecondDeepseekOcr,
        UnlimitedOcrForConditionalGeneration,
    )

    first, *others = CHANNELS
    second = kind == "ocr2"
    sam = DeepseekOcr2SamVisionConfig(
        **SAM, image_size=WHOLE, output_channels=first, downsample_channels=others, global_attn_indexes=GLOBAL_LAYERS
    )
    rope = {"rope_type": "default", "rope_theta": 1e6}
    qwen2 = DeepseekOcr2VisionEncoderConfig(**QWEN2, vocab_size=1, rope_parameters=rope)
    encoder = qwen2 if second else transformers.CLIPVisionConfig(**CLIP)
    kinds = ["dense", *["sparse"] * (N_LAYERS - 1)]
    text = {**text_settings(n_words, **settings), "mlp_layer_types": kinds, "rope_parameters": dict(ROPE)}
    config: Any = transformers.DeepseekOcr2Config(
        vision_config=transformers.DeepseekOcr2VisionConfig(sam_config=sam, encoder_config=encoder),
        text_config=transformers.DeepseekOcr2TextConfig(**text),
        image_token_id=image,
        tie_word_embeddings=False,
    )
    for one in (config, config.text_config, config.vision_config, sam, encoder):
        one._attn_implementation = "sdpa"
    model: Any = SecondDeepseekOcr if second else UnlimitedOcrForConditionalGeneration
    return model(config).float().eval()


def save_deepseek_ocr(folder: Path, kind: str = "ocr", **settings: Any) -> None:
    """DeepSeek-OCR with up to six crops of an image, or Unlimited-OCR with up to 32, of an image that is alone in its
    prompt."""
    words = tokenizer(IMAGE, "<begin>")
    words.bos_token, words.chat_template = "<begin>", CHAT.replace("IMAGE", IMAGE)
    arguments = {"kind": kind, "n_words": len(words), "image": words.convert_tokens_to_ids(IMAGE), **settings}
    model = own_model(**arguments)
    draw_weights(model)
    weights = {name: weight.contiguous().clone() for name, weight in model.state_dict().items()}
    (folder / CONVERTED).mkdir(parents=True)
    save_file(weights, folder / CONVERTED / "model.safetensors")
    (folder / CONVERTED / "arguments.json").write_text(json.dumps(arguments))
    save_file(published(weights, kind), folder / "model.safetensors", {"format": "pt"})
    words.save_pretrained(folder)
    text = {**text_settings(len(words), **settings), "first_k_dense_replace": 1, "rope_theta": 1e4, "use_mla": False}
    text |= {"qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0, "kv_lora_rank": None, "q_lora_rank": None}
    text |= {"architectures": ["DeepseekV2ForCausalLM"], "norm_topk_prob": False, "tie_word_embeddings": False}
    del text["head_dim"]
    clip = {"heads": CLIP["num_attention_heads"], "layers": CLIP["num_hidden_layers"], "width": CLIP["hidden_size"]}
    encoder = {"qwen2-0-5b": {"dim": QWEN2["hidden_size"]}} if kind == "ocr2" else {"clip-l-14-224": clip}
    width = CHANNELS[-1] if kind == "ocr2" else CHANNELS[-1] + CLIP["hidden_size"]
    projector = {"projector_type": "linear", "input_dim": width, "n_embed": 64}
    name, model_type = NAMES[kind]
    written = {"architectures": [name], "model_type": model_type, "torch_dtype": "float32", "tile_tag": "2D"}
    written |= {"vision_config": {"image_size": WHOLE, "model_type": "vision", "width": encoder}}
    written |= {"language_config": text, "projector_config": projector}
    (folder / "config.json").write_text(json.dumps(written))


save_deepseek_ocr2 = partial(save_deepseek_ocr, kind="ocr2")
save_unlimited_ocr = partial(save_deepseek_ocr, kind="unlimited")


def draw_weights(model: Any) -> None:
    """Make the attention of a model far from uniform."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            wide = 0.25 if "embed_tokens" in name or "lm_head" in name else 0.15
            # What enters many channels grows with their number, and rounding errors with that of layers.
            deep = "vision_encoder.layers" in name and not name.endswith(("q_proj.weight", "k_proj.weight"))
            std = 0.02 if "sam_encoder.proj" in name else 0.04 if deep else wide
            if parameter.ndim > 1 or name.endswith(("newline", "separator", "class_embedding")):
                parameter.normal_(std=std, generator=generator)


def published(weights: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return the weights of the tests' model as published, where some are joined and others split."""
    left = {renamed(name): weight for name, weight in weights.items()}
    found = {}
    if kind != "ocr2":
        unused = torch.zeros(CLIP["hidden_size"], 3, PATCH, PATCH)
        found["model.vision_model.embeddings.patch_embedding.weight"] = unused
        for number in range(CLIP["num_hidden_layers"]):
            attention = f"model.vision_model.transformer.layers.{number}.self_attn."
            for part in ("weight", "bias"):
                parts = [left.pop(f"{attention}{one}_proj.{part}") for one in "qkv"]
                found[f"{attention}qkv_proj.{part}"] = torch.cat(parts)
    for number in range(1, N_LAYERS):
        experts = f"model.layers.{number}.mlp.experts."
        inner, outer = left.pop(f"{experts}gate_up_proj"), left.pop(f"{experts}down_proj")
        for expert, (both, down) in enumerate(zip(inner, outer, strict=True)):
            gate, up = both.chunk(2)
            parts = {"gate": gate, "up": up, "down": down}
            found |= {f"{experts}{expert}.{name}_proj.weight": part.clone() for name, part in parts.items()}
    return {**found, **left}


def renamed(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name
