"""A tiny LLaVA-OneVision 2, which transformers has no class for, and the same model as an EXAONE 4.5 with a Qwen3, and
with other norms, MLPs and rotary embeddings in its tower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.served.models import CHAT, N_LAYERS, PATCH, QWEN_IMAGE, decoder, save, tokenizer
from helpers.served.native.packed import SIZES
from helpers.served.reference import CONVERTED

WIDTH, INNER, HEADS = 64, 96, 2
HALF = WIDTH // HEADS // 2
EPSILON = 1e-6
#: What the EXAONE 4.5 lacks, in its folder, under the names that LLaVA-OneVision 2 has.
PARTS = "parts_of_onevision.safetensors"
LAYERS = "model.visual.encoder.layers"
#: The dimensions of a head that are rotated together: in LLaVA-OneVision 2 neighbours, in EXAONE 4.5 half a head apart.
ORDER = torch.cat([torch.arange(0, 2 * HALF, 2), torch.arange(1, 2 * HALF, 2)])
#: What published checkpoints bring along. This processor takes no videos.
CONFIGURATION = """from transformers import PreTrainedConfig, Qwen3Config


class LlavaOnevision2VisionConfig(PreTrainedConfig):
    model_type = "llava_onevision2"


class LlavaOnevision2Config(PreTrainedConfig):
    model_type = "llava_onevision2"

    def __init__(self, vision_config=None, text_config=None, **settings):
        super().__init__(**settings)
        self.vision_config = LlavaOnevision2VisionConfig(**(vision_config or {}))
        self.text_config = Qwen3Config(**(text_config or {}))
"""
PROCESSING = """import torch
from transformers import BatchFeature


class LlavaOnevision2Processor:
    def __init__(self, image_processor=None, tokenizer=None, video_processor=None, codec_config=None):
        self.image_processor, self.tokenizer = image_processor, tokenizer

    def __call__(self, images=None, text=None, **settings):
        found = dict(self.tokenizer(text, return_tensors="pt")) if text is not None else {}
        if images is not None:
            found |= dict(self.image_processor(images, return_tensors="pt"))
            side = self.image_processor.merge_size
            places = []
            for _, height, width in found["image_grid_thw"].tolist():
                grid = torch.cartesian_prod(torch.arange(1), torch.arange(height), torch.arange(width))
                grid = grid.view(height // side, side, width // side, side, 3).transpose(1, 2)
                places.append(grid.reshape(-1, 3))
            found["patch_positions"] = torch.cat(places)
        return BatchFeature(found)
"""
VIDEO = """class LlavaOnevision2VideoProcessor:
    def __init__(self, **settings):
        pass
"""


def save_llava_onevision2(folder: Path, **settings: Any) -> None:
    """LLaVA-OneVision 2 with up to 49 visual tokens, each of 2 x 2 patches."""
    words = tokenizer(*QWEN_IMAGE.split(), image_token=QWEN_IMAGE.split()[1], video_token="<|video_pad|>")
    image, video = words.convert_tokens_to_ids([QWEN_IMAGE.split()[1], "<|video_pad|>"])
    text = decoder(len(words), model_type="qwen3", tie_word_embeddings=False, **settings)
    same = {"hidden_size": WIDTH, "intermediate_size": INNER, "patch_size": PATCH, "spatial_merge_size": 2}
    vision = {"depth": N_LAYERS, "num_heads": HEADS, "num_key_value_heads": HEADS, "temporal_patch_size": 1}
    config = transformers.Exaone4_5_Config(
        vision_config={**same, **vision, "out_hidden_size": WIDTH, "fullatt_block_indexes": [*range(N_LAYERS)]},
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        tie_word_embeddings=False,
    )
    images = transformers.Qwen2VLImageProcessor(patch_size=PATCH, temporal_patch_size=1, size=SIZES)
    processor = transformers.Exaone4_5_Processor(
        image_processor=images,
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=PATCH, temporal_patch_size=1),
    )
    converted = folder / CONVERTED
    save(transformers.Exaone4_5_ForConditionalGeneration(config), processor, converted)
    parts = draw_parts()
    save_file(parts, converted / PARTS)
    weights = load_file(converted / "model.safetensors")
    save_file({**published(weights), **parts}, folder / "model.safetensors", {"format": "pt"})
    images.save_pretrained(folder)
    words.chat_template = CHAT.replace("IMAGE", QWEN_IMAGE)
    words.save_pretrained(folder)
    written = {
        "architectures": ["LlavaOnevision2ForConditionalGeneration"],
        "model_type": "llava_onevision2",
        "auto_map": {"AutoConfig": "configuration_llava_onevision2.LlavaOnevision2Config"},
        "text_config": text,
        "vision_config": {**same, "num_hidden_layers": N_LAYERS, "num_attention_heads": HEADS},
        "image_token_id": image,
        "torch_dtype": "float32",
    }
    written["vision_config"] |= {"layer_norm_eps": EPSILON, "num_channels": 3, "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(written))
    for name, code in (("configuration", CONFIGURATION), ("processing", PROCESSING), ("video_processing", VIDEO)):
        (folder / f"{name}_llava_onevision2.py").write_text(code)


def draw_parts() -> dict[str, Tensor]:
    """Norms and MLPs of the tower."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.empty(shape).normal_(std=0.15, generator=generator)

    found: dict[str, Tensor] = {}
    layers = [f"{LAYERS}.{number}" for number in range(N_LAYERS)]
    norms = [f"{layer}.layer_norm{which}" for layer in layers for which in (1, 2)]
    for name in ("model.visual.layernorm_pre", "model.visual.merger.ln_q", *norms):
        found |= {f"{name}.weight": 1 + drawn(WIDTH), f"{name}.bias": drawn(WIDTH)}
    for layer in layers:
        found |= {f"{layer}.mlp.fc1.weight": drawn(INNER, WIDTH), f"{layer}.mlp.fc1.bias": drawn(INNER)}
        found |= {f"{layer}.mlp.fc2.weight": drawn(WIDTH, INNER), f"{layer}.mlp.fc2.bias": drawn(WIDTH)}
    return found


def published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The EXAONE 4.5's weights that LLaVA-OneVision 2 has too, under its names and in its order."""
    patches = weights["model.visual.patch_embed.proj.weight"].squeeze(2)
    found = {"model.visual.embeddings.patch_embedding.weight": patches}
    for name, weight in weights.items():
        if not name.startswith("model.visual."):
            found[name] = weight
        elif ".attn.qkv." in name:
            queries, keys, values = weight.chunk(3)
            back = ORDER.argsort()
            apart = [part.unflatten(0, (HEADS, -1))[:, back].flatten(0, 1) for part in (queries, keys)]
            found[renamed(name)] = torch.cat([*apart, values])
        elif ".attn.proj." in name or ".merger.mlp." in name:
            found[renamed(name)] = weight
    return {name: weight.contiguous() for name, weight in found.items()}


def renamed(name: str) -> str:
    return name.replace("model.visual.blocks.", f"{LAYERS}.").replace(".attn.", ".self_attn.")


class Rotary(nn.Module):
    """The angles of rows and columns of patches, after those of frames, which are zero in images."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        n_frames, n_sides = HALF // 4, HALF * 3 // 8
        frequencies = 10000.0 ** (-torch.arange(n_sides) / n_sides)
        rows, columns = (place[:, None].float() * frequencies for place in position_ids.T)
        half = torch.cat([torch.zeros(len(rows), n_frames), rows, columns], -1)
        angles = torch.cat([half, half], -1)[:, ORDER]
        return angles.cos(), angles.sin()


def see_as_llava_onevision2(model: Any, folder: Path) -> None:
    """Make an EXAONE 4.5 the LLaVA-OneVision 2 that was saved beside it; others have no such file."""
    if not (folder / PARTS).exists():
        return
    weights, tower = load_file(folder / PARTS), model.model.visual

    def loaded(module: nn.Module, name: str) -> nn.Module:
        module.load_state_dict({kind: weights[f"{name}.{kind}"] for kind in module.state_dict()})
        return module

    def norm(name: str) -> nn.Module:
        return loaded(nn.LayerNorm(WIDTH, eps=EPSILON), name)

    tower.patch_embed = nn.Sequential(tower.patch_embed, norm("model.visual.layernorm_pre"))
    tower.merger.ln_q = norm("model.visual.merger.ln_q")
    tower.rotary_pos_emb = Rotary()
    for number, block in enumerate(tower.blocks):
        layer = f"{LAYERS}.{number}"
        block.norm1, block.norm2 = norm(f"{layer}.layer_norm1"), norm(f"{layer}.layer_norm2")
        inner, outer = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        block.mlp = nn.Sequential(loaded(inner, f"{layer}.mlp.fc1"), nn.GELU(), loaded(outer, f"{layer}.mlp.fc2"))
