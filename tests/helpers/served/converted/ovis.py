"""A tiny Ovis 2.5 in its authors' format, and the same model as an EXAONE 4.5 with a Qwen3, and with
SigLIP's norms and MLPs and a visual vocabulary in its tower."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.served.converted.colors import HALVES, read_halves
from helpers.served.models import CHAT, IMAGE, N_LAYERS, PATCH, decoder, save, tokenizer
from helpers.served.native.packed import SIZES
from helpers.served.reference import CONVERTED

OVIS_VISUAL, OVIS_VIDEO = "<|image_pad|>", "<video>"
#: In this order, because vLLM tells the marks by their token IDs.
MARKS = ("<ovis_image_start>", "<ovis_image_end>", "<ovis_video_start>", "<ovis_video_end>")
SPECIALS = ("<ovis_visual_atom>", *MARKS, OVIS_VISUAL)
WIDTH, INNER, VOCABULARY = 64, 96, 36
EPSILON = 1e-6
#: What the EXAONE 4.5 lacks, in its folder, under the names that Ovis 2.5 has.
PARTS = "parts_of_ovis.safetensors"
TOWER = "visual_tokenizer.vit.vision_model"
HEAD = "visual_tokenizer.head"
#: What published checkpoints bring along.
CONFIGURATION = """from transformers import PreTrainedConfig, Qwen3Config


class Siglip2NavitConfig(PreTrainedConfig):
    model_type = "siglip2_navit"


class Ovis2_5_Config(PreTrainedConfig):
    model_type = "ovis2_5"

    def __init__(self, llm_config=None, vit_config=None, **settings):
        super().__init__(**settings)
        self.text_config = Qwen3Config(**(llm_config or {}))
        self.vit_config = Siglip2NavitConfig(**(vit_config or {}))
"""


def save_ovis2_5(folder: Path, **settings: Any) -> None:
    """Ovis 2.5 with up to 49 visual tokens, each of 2 x 2 patches. One of three layers of its tower has windows, of
    2 x 2 visual tokens."""
    words = tokenizer(*SPECIALS, image_token=IMAGE, video_token=OVIS_VIDEO)
    image, video = words.convert_tokens_to_ids([IMAGE, OVIS_VIDEO])
    text = decoder(len(words), model_type="qwen3", tie_word_embeddings=False, **settings)
    same = {"hidden_size": WIDTH, "intermediate_size": INNER, "patch_size": PATCH, "window_size": 4 * PATCH}
    vision = {"depth": N_LAYERS, "num_heads": 4, "num_key_value_heads": 4, "fullatt_block_indexes": [0, 2]}
    config = transformers.Exaone4_5_Config(
        vision_config={**same, **vision, "temporal_patch_size": 1, "out_hidden_size": WIDTH},
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        tie_word_embeddings=False,
    )
    patches = {**HALVES, "patch_size": PATCH, "temporal_patch_size": 1, "size": SIZES}
    processor = transformers.Exaone4_5_Processor(
        image_processor=transformers.Qwen2VLImageProcessor(**patches),
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(**patches),
    )
    converted = folder / CONVERTED
    save(transformers.Exaone4_5_ForConditionalGeneration(config), processor, converted)
    parts = draw_parts()
    save_file(parts, converted / PARTS)
    weights = load_file(converted / "model.safetensors")
    save_file({**published(weights), **parts}, folder / "model.safetensors", {"format": "pt"})
    weights["model.language_model.embed_tokens.weight"][words.convert_tokens_to_ids([*MARKS])] = parts["vte.weight"][
        -4:
    ]
    save_file(weights, converted / "model.safetensors", {"format": "pt"})
    transformers.SiglipImageProcessor(resample=3, **HALVES).save_pretrained(folder)
    words.chat_template = CHAT.replace("IMAGE", IMAGE)
    words.save_pretrained(folder)
    layers = {"num_hidden_layers": N_LAYERS, "num_attention_heads": 4, "attention_dropout": 0.0}
    layers |= {"layer_norm_eps": EPSILON, "hidden_act": "gelu_pytorch_tanh", "fullatt_block_indexes": "0|2"}
    layers |= {"num_channels": 3, "num_patches": -1, "image_size": 8 * PATCH, "preserve_original_pe": True}
    layers |= {"use_rope": True, "hidden_stride": 2, "temporal_patch_size": 1}
    written = {
        "architectures": ["Ovis2_5"],
        "model_type": "ovis2_5",
        "auto_map": {"AutoConfig": "configuration_ovis2_5.Ovis2_5_Config"},
        "llm_config": {**text, "architectures": ["Qwen3ForCausalLM"]},
        "vit_config": {**same, **layers},
        "visual_vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "configuration_ovis2_5.py").write_text(CONFIGURATION)


def draw_parts() -> dict[str, Tensor]:
    """Norms and MLPs of the tower, the bias of its patches, and the visual vocabulary. Its position embeddings are
    zeros, because the EXAONE 4.5 has none."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int, std: float = 0.15) -> Tensor:
        return torch.empty(shape).normal_(std=std, generator=generator)

    found: dict[str, Tensor] = {}
    for layer in (f"{TOWER}.encoder.layers.{number}" for number in range(N_LAYERS)):
        for name in (f"{layer}.layer_norm1", f"{layer}.layer_norm2"):
            found |= {f"{name}.weight": 1 + drawn(WIDTH), f"{name}.bias": drawn(WIDTH)}
        found |= {f"{layer}.mlp.fc1.weight": drawn(INNER, WIDTH), f"{layer}.mlp.fc1.bias": drawn(INNER)}
        found |= {f"{layer}.mlp.fc2.weight": drawn(WIDTH, INNER), f"{layer}.mlp.fc2.bias": drawn(WIDTH)}
    found[f"{TOWER}.embeddings.patch_embedding.bias"] = drawn(WIDTH)
    found[f"{TOWER}.embeddings.position_embedding.weight"] = torch.zeros(64, WIDTH)
    found |= {f"{TOWER}.post_layernorm.weight": torch.ones(WIDTH), f"{TOWER}.post_layernorm.bias": torch.zeros(WIDTH)}
    n_mixed = VOCABULARY - 4
    found |= {f"{HEAD}.0.weight": drawn(n_mixed, 4 * WIDTH), f"{HEAD}.1.weight": 2 + drawn(n_mixed)}
    return {**found, f"{HEAD}.1.bias": drawn(n_mixed), "vte.weight": drawn(VOCABULARY, WIDTH, std=0.5)}


def published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The EXAONE 4.5's weights that Ovis 2.5 has too, under its names."""
    found = {f"{TOWER}.embeddings.patch_embedding.weight": weights["model.visual.patch_embed.proj.weight"].squeeze(2)}
    for number in range(N_LAYERS):
        ours, theirs = f"model.visual.blocks.{number}.attn", f"{TOWER}.encoder.layers.{number}.self_attn"
        for kind in ("weight", "bias"):
            found[f"{theirs}.out_proj.{kind}"] = weights[f"{ours}.proj.{kind}"]
            for part, one in zip("qkv", weights[f"{ours}.qkv.{kind}"].chunk(3), strict=True):
                found[f"{theirs}.{part}_proj.{kind}"] = one
    for name, weight in weights.items():
        if not name.startswith("model.visual."):
            found["llm." + name.replace("model.language_model.", "model.")] = weight
    return {name: weight.contiguous() for name, weight in found.items()}


class Merged(nn.Module):
    def forward(self, patches: Tensor) -> Tensor:
        return patches.reshape(-1, 4 * WIDTH)


class WithMarks:
    """A processor that writes the marks around images and videos."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, text: list[str], **others: Any) -> Any:
        for token, start, end in ((IMAGE, *MARKS[:2]), (OVIS_VIDEO, *MARKS[2:])):
            text = [one.replace(token, f"{start} {token} {end}") for one in text]
        return self.processor(text=text, **others)


def see_as_ovis2_5(model: Any, processor: Any, folder: Path) -> Any:
    """Make an EXAONE 4.5 the Ovis 2.5 that was saved beside it, and return the processor for it; others have no such
    file."""
    from tokenprune.adapters.families.qwen_vl import Qwen2_5_VLAdapter

    if not (folder / PARTS).exists():
        return processor
    read_halves(model, Qwen2_5_VLAdapter)
    weights, tower = load_file(folder / PARTS), model.model.visual

    def loaded(module: nn.Module, name: str) -> nn.Module:
        module.load_state_dict({kind: weights[f"{name}.{kind}"] for kind in module.state_dict()})
        return module

    bias = weights[f"{TOWER}.embeddings.patch_embedding.bias"]
    tower.patch_embed.register_forward_hook(lambda module, given, patches: patches + bias)
    for number, block in enumerate(tower.blocks):
        layer = f"{TOWER}.encoder.layers.{number}"
        block.norm1, block.norm2 = (
            loaded(nn.LayerNorm(WIDTH, eps=EPSILON), f"{layer}.layer_norm{which}") for which in (1, 2)
        )
        inner, outer = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        block.mlp = nn.Sequential(loaded(inner, f"{layer}.mlp.fc1"), nn.GELU("tanh"), loaded(outer, f"{layer}.mlp.fc2"))
    n_mixed = VOCABULARY - 4
    head = loaded(nn.Linear(4 * WIDTH, n_mixed, bias=False), f"{HEAD}.0")
    mixing = nn.Linear(n_mixed, WIDTH, bias=False)
    mixing.weight.data = weights["vte.weight"][:n_mixed].T.contiguous()
    tower.merger = nn.Sequential(Merged(), head, loaded(nn.LayerNorm(n_mixed), f"{HEAD}.1"), nn.Softmax(-1), mixing)
    return WithMarks(processor)


def serve_small_ovis2_5() -> None:
    """Let vLLM take small images, since its processor has the published sizes in its code, short videos, of which it
    counts patches instead of visual tokens, and the marks' token IDs of the tests' tokenizer."""
    from vllm.model_executor.models import ovis2_5
    from vllm.multimodal.parse import ImageSize

    least, most = SIZES["shortest_edge"], SIZES["longest_edge"]
    words = tokenizer(*SPECIALS, image_token=IMAGE, video_token=OVIS_VIDEO)
    ovis2_5.INDICATOR_IDS = words.convert_tokens_to_ids([*MARKS])
    info = ovis2_5.Ovis2_5ProcessingInfo
    info.get_image_size_with_most_features = lambda self: ImageSize(14 * PATCH, 14 * PATCH)
    info.get_num_frames_with_most_features = lambda self, *lengths: 2
    ovis2_5.Ovis2_5Processor.preprocess_multidata.__defaults__ = (None, None, True, least, most, "pt")
