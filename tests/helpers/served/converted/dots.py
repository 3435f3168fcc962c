"""A tiny dots.ocr, for which transformers has no class, and the same model as an EXAONE 4.5 with three more norms."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.served.models import CHAT, N_LAYERS, PATCH, decoder, save, tokenizer
from helpers.served.native.packed import SIZES
from helpers.served.reference import CONVERTED

DOTS_IMAGE = "<|img|> <|imgpad|> <|endofimg|>"
WIDTH = 64
#: The epsilon of an EXAONE 4.5's norms.
EPSILON = 1e-6
#: A file in the EXAONE 4.5's folder with the weights that it lacks, under dots.ocr's names.
NORMS = "norms.safetensors"
PATCHES, LAST, MERGER = "patch_embed.patchifier", "post_trunk_norm", "merger.ln_q"
#: Code in published checkpoints, because transformers does not know the type.
CONFIGURATION = """from transformers import PreTrainedConfig, Qwen2Config


class DotsVisionConfig(PreTrainedConfig):
    model_type = "dots_vit"


class DotsOCRConfig(Qwen2Config):
    model_type = "dots_ocr"

    def __init__(self, vision_config=None, **settings):
        super().__init__(**settings)
        self.vision_config = DotsVisionConfig(**(vision_config or {}))
"""
#: Parts of names in transformers' format, and in dots.ocr's.
RENAMED = {
    r"^model\.visual\.patch_embed\.": f"vision_tower.{PATCHES}.",
    r"^model\.visual\.": "vision_tower.",
    r"^model\.language_model\.": "model.",
    r"^(vision_tower\..*)\.gate_proj\.": r"\1.fc1.",
    r"^(vision_tower\..*)\.up_proj\.": r"\1.fc3.",
    r"^(vision_tower\..*)\.down_proj\.": r"\1.fc2.",
}


def save_dots_ocr(folder: Path, **settings: Any) -> None:
    """dots.ocr with up to 49 visual tokens, each of 2 x 2 patches."""
    start, image, end = DOTS_IMAGE.split()
    words = tokenizer(start, end, image_token=image, video_token="<|video_pad|>")
    ids = {"image_token_id": words.convert_tokens_to_ids(image), "video_token_id": words.convert_tokens_to_ids(end)}
    text = decoder(len(words), model_type="qwen2", tie_word_embeddings=False, **settings)
    same = {"num_channels": 3, "hidden_size": WIDTH, "intermediate_size": 96, "patch_size": PATCH}
    vision = {"depth": N_LAYERS, "num_heads": 4, "temporal_patch_size": 1, "out_hidden_size": WIDTH}
    config = transformers.Exaone4_5_Config(
        vision_config={**same, **vision, "num_key_value_heads": 4, "fullatt_block_indexes": [*range(N_LAYERS)]},
        text_config=text,
        tie_word_embeddings=False,
        **ids,
    )
    parts = {
        "image_processor": transformers.Qwen2VLImageProcessor(patch_size=PATCH, temporal_patch_size=1, size=SIZES),
        "tokenizer": words,
        "video_processor": transformers.Qwen2VLVideoProcessor(patch_size=PATCH, temporal_patch_size=1),
        "chat_template": CHAT.replace("IMAGE", DOTS_IMAGE),
    }
    converted = folder / CONVERTED
    save(transformers.Exaone4_5_ForConditionalGeneration(config), transformers.Exaone4_5_Processor(**parts), converted)
    norms = draw_norms()
    save_file(norms, converted / NORMS)
    transformers.Qwen2VLProcessor(**parts).save_pretrained(folder)
    theirs = {renamed(name): weight for name, weight in load_file(converted / "model.safetensors").items()}
    theirs = {name: one for name, one in theirs.items() if not re.search(r"vision_tower\.blocks\..*\.bias$", name)}
    theirs |= {f"vision_tower.{name}": weight for name, weight in norms.items()}
    patches = f"vision_tower.{PATCHES}.proj.weight"
    theirs[patches] = theirs[patches].squeeze(2).contiguous()  # one frame
    save_file(theirs, folder / "model.safetensors", {"format": "pt"})
    layers = {"embed_dim": WIDTH, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4, "rms_norm_eps": EPSILON}
    more = {"spatial_merge_size": 2, "temporal_patch_size": 1, "use_bias": False, "post_norm": True}
    published = {"architectures": ["DotsOCRForCausalLM"], "model_type": "dots_ocr", **ids, "torch_dtype": "float32"}
    published |= {"auto_map": {"AutoConfig": "configuration_dots.DotsOCRConfig"}}
    published |= {"vision_config": {**same, **layers, **more}}
    (folder / "config.json").write_text(json.dumps({**text, **published}))
    (folder / "configuration_dots.py").write_text(CONFIGURATION)


def draw_norms() -> dict[str, Tensor]:
    """Draw the bias of the patch embeddings, and the norms after them, after the last layer and of the merger."""
    generator = torch.Generator().manual_seed(1)
    found = {f"{PATCHES}.proj.bias": torch.empty(WIDTH).normal_(std=0.5, generator=generator)}
    for name, least, most in ((f"{PATCHES}.norm", 0.5, 1.5), (LAST, 0.5, 1.5), (MERGER, 0.2, 0.6)):
        found[f"{name}.weight"] = torch.empty(WIDTH).uniform_(least, most, generator=generator)
    found[f"{MERGER}.bias"] = torch.empty(WIDTH).normal_(std=0.1, generator=generator)
    return found


def renamed(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def norm_as_dots_ocr(model: Any, folder: Path) -> None:
    """Turn an EXAONE 4.5 into the dots.ocr that was saved with it. Does nothing without that file."""
    if not (folder / NORMS).exists():
        return
    weights = load_file(folder / NORMS)
    bias = weights[f"{PATCHES}.proj.bias"]
    first, last = (rms_norm(weights[f"{name}.weight"]) for name in (f"{PATCHES}.norm", LAST))
    model.model.visual.patch_embed.register_forward_hook(lambda module, given, patches: first(patches + bias))
    merging = nn.LayerNorm(WIDTH, eps=EPSILON)
    merging.load_state_dict({name: weights[f"{MERGER}.{name}"] for name in ("weight", "bias")})
    model.model.visual.merger.ln_q = nn.Sequential(last, merging)


def rms_norm(weight: Tensor) -> nn.RMSNorm:
    norm = nn.RMSNorm(len(weight), eps=EPSILON)
    norm.load_state_dict({"weight": weight})
    return norm
