"""A tiny MiniCPM-V 2.5 to 4.5 or MiniCPM-o, which transformers has no class for, and the same model as an Idefics2 with
another resampler."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import decoders
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from helpers.served.converted.minicpmv_images import (
    MARKS,
    MINICPMO_SOUND,
    MINICPMV_IMAGE,
    MINICPMV_VIDEO,
    MINICPMV_VISUAL,
    QUERIES,
    ForIdefics2,
)
from helpers.served.models import CHAT, PATCH, decoder, save, tower
from helpers.served.native.gemma import words_and_newlines
from helpers.served.reference import CONVERTED

#: vLLM's resampler has a head for every 128 of them.
WIDTH, HEAD = 256, 128
#: The language model of each version.
DECODERS = {"2.5": "Llama", "2.6": "Qwen2", "4.0": "Llama", "4.5": "Qwen3"}
TOKENS = {
    **MARKS,
    "visual": MINICPMV_VISUAL,
    "an_image": MINICPMV_IMAGE,
    "a_video": MINICPMV_VIDEO,
    "a_sound": MINICPMO_SOUND,
}
#: Code in published checkpoints.
CONFIGURATION = """from transformers import {decoder}Config, SiglipVisionConfig, WhisperConfig


class MiniCPMConfig({decoder}Config):
    model_type = "{model_type}"

    def __init__(self, vision_config=None, audio_config=None, **settings):
        self.vision_config = SiglipVisionConfig(**(vision_config or {{}}))
        if audio_config is not None:
            self.audio_config = WhisperConfig(**audio_config)
        super().__init__(**settings)
"""
IMAGES = "from helpers.served.converted.minicpmv_images import MiniCPMVImageProcessor as MiniCPMVImageProcessor\n"
PROCESSING = "from helpers.served.converted.minicpmv_images import MiniCPMVProcessor as MiniCPMVProcessor\n"
#: Beginnings of names in the Idefics2 -> in published checkpoints.
RENAMED = {
    "model.vision_model.": "vpm.",
    "model.text_model.": "llm.model.",
    "lm_head.": "llm.lm_head.",
    "model.connector.": "resampler.",
    "resampler.self_attn.": "resampler.attn.",
}
AUDIO: dict[str, Any] = {"d_model": 64, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 256}
AUDIO |= {"num_mel_bins": 80, "max_source_positions": 1500, "decoder_layers": 1, "attn_implementation": "eager"}


def save_minicpmv(folder: Path, version: str = "2.6", omni: bool = False, **settings: Any) -> None:
    """A tower of up to 16 patches, or an overview and up to four slices of about as many."""
    words = words_and_newlines(*map(str, range(10)), **TOKENS)
    words.bos_token, words.unk_token = "<pad>", MINICPMV_VISUAL  # vLLM's processor reads both
    words.backend_tokenizer.decoder = decoders.Fuse()  # vLLM looks for numbers
    kind = DECODERS[version]
    sizes = {"hidden_size": WIDTH, "num_attention_heads": WIDTH // 32, "tie_word_embeddings": False}
    text = decoder(len(words), **{**sizes, **settings})
    vision = tower(8 * PATCH, layer_norm_eps=1e-6, hidden_act="gelu_pytorch_tanh")
    more: dict[str, Any] = {"version": version}
    config = transformers.Idefics2Config(
        vision_config=vision,
        text_config={**text, "model_type": kind.lower()},
        perceiver_config={
            "hidden_size": WIDTH,
            "resampler_n_latents": QUERIES,
            "resampler_n_heads": WIDTH // HEAD,
            "num_key_value_heads": WIDTH // HEAD,
            "resampler_head_dim": HEAD,
        },
        image_token_id=words.convert_tokens_to_ids(MINICPMV_VISUAL),
        **more,
    )
    model: Any = transformers.Idefics2ForConditionalGeneration(config)
    model.model.connector = Resampler(vision["hidden_size"])
    save(model, words, folder / CONVERTED)
    file = folder / CONVERTED / "model.safetensors"
    drawn = {name: narrowed(name, one) for name, one in load_file(file).items()}
    save_file(drawn, file, {"format": "pt"})
    weights = published(drawn)
    save_file({**weights, **(audio() if omni else {})}, folder / "model.safetensors", {"format": "pt"})
    words.chat_template = CHAT.replace("IMAGE", MINICPMV_IMAGE)
    words.save_pretrained(folder)
    model_type, name = ("minicpmo", "MiniCPMO") if omni else ("minicpmv", "MiniCPMV")
    written = {**text, "architectures": [name], "model_type": model_type, "version": version, "query_num": QUERIES}
    written |= {"vision_config": vision, "image_size": 4 * PATCH, "drop_vision_last_layer": False}
    written |= {"auto_map": {"AutoConfig": "configuration_minicpm.MiniCPMConfig"}, "torch_dtype": "float32"}
    if omni:
        written |= {"audio_config": AUDIO, "audio_pool_step": 2, "audio_chunk_length": 1.0}
    (folder / "config.json").write_text(json.dumps(written))
    code = {"AutoImageProcessor": "image_processing_minicpmv.MiniCPMVImageProcessor"}
    code |= {"AutoProcessor": "processing_minicpmv.MiniCPMVProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": code, "version": float(version)}))
    (folder / "configuration_minicpm.py").write_text(CONFIGURATION.format(decoder=kind, model_type=model_type))
    (folder / "image_processing_minicpmv.py").write_text(IMAGES)
    (folder / "processing_minicpmv.py").write_text(PROCESSING)


def narrowed(name: str, weight: Tensor) -> Tensor:
    """Return a weight as small as in other families, whose states are a quarter as wide, or else answers differ by
    rounding."""
    return weight / 2 if weight.ndim > 1 and "vision_model" not in name else weight


def published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return an Idefics2's weights as published: in the resampler, three projections are one."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        for ours, theirs in RENAMED.items():
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        found[name] = weight
    for end in ("weight", "bias"):
        parts = [found.pop(f"resampler.attn.{one}_proj.{end}") for one in "qkv"]
        found[f"resampler.attn.in_proj_{end}"] = torch.cat(parts)
    return found


def audio() -> dict[str, Tensor]:
    """Return weights of a tower for audio."""
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(1)
    encoder = WhisperEncoder(transformers.WhisperConfig(**AUDIO))
    first, second = nn.Linear(AUDIO["encoder_ffn_dim"] // 4, WIDTH), nn.Linear(WIDTH, WIDTH)
    parts = {"apm": encoder, "audio_projection_layer.linear1": first, "audio_projection_layer.linear2": second}
    return {f"{name}.{one}": weight for name, part in parts.items() for one, weight in part.state_dict().items()}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.v_proj, self.out_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, real: Tensor) -> Tensor:
        projected = (self.q_proj(queries), self.k_proj(keys), self.v_proj(values))
        heads = (one.unflatten(-1, (-1, HEAD)).transpose(1, 2) for one in projected)
        found = scaled_dot_product_attention(*heads, attn_mask=real[:, None, None])
        return self.out_proj(found.transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """MiniCPM-V's, in the place of Idefics2's. Its keys know their row and column, but not its values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.proj = nn.Parameter(torch.zeros(QUERIES, WIDTH)), nn.Parameter(torch.zeros(WIDTH, WIDTH))
        self.kv_proj, self.self_attn = nn.Linear(width, WIDTH, bias=False), Attention()
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(3))
        self.n_columns = 0

    @property
    def perceiver_resampler(self) -> Any:
        return self

    @property
    def layers(self) -> Any:
        return [self]

    def note(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.n_columns = kwargs["patch_attention_mask"].shape[2]

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(states.shape[1])
        values = self.ln_kv(self.kv_proj(states))
        keys = values + torch.cat([waves(places % self.n_columns), waves(places // self.n_columns)], -1)
        queries = self.ln_q(self.query).expand(len(states), -1, -1)
        return self.ln_post(self.self_attn(queries, keys, values, attention_mask)) @ self.proj


def waves(places: Tensor) -> Tensor:
    n = WIDTH // 4
    angles = places[:, None] * torch.exp(-math.log(10000) / n * torch.arange(n))
    return torch.cat([angles.sin(), angles.cos()], -1)


class PlacesInARow(nn.Module):
    """The embeddings of a tower in which a patch's place is its number among all: MiniCPM-V 2.5's."""

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.whole = embeddings

    def forward(self, pixel_values: Tensor, patch_attention_mask: Tensor) -> Tensor:
        real, side = patch_attention_mask.flatten(1), self.whole.num_patches_per_side
        numbers = (real.cumsum(1) - 1).clamp(min=0) / real.sum(1, keepdim=True)
        places = torch.bucketize(numbers, torch.arange(1 / side, 1.0, 1 / side), right=True)
        patches = self.whole.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        return patches + self.whole.position_embedding(places)


def load_minicpmv(folder: Path) -> tuple[Any, Any]:
    """Return the Idefics2 of a checkpoint, and the stand-in for its processor."""
    converted = folder / CONVERTED
    model: Any = transformers.Idefics2ForConditionalGeneration.from_pretrained(
        converted, dtype=torch.float32, attn_implementation="sdpa"
    )
    resampler = Resampler(model.config.vision_config.hidden_size)
    start, weights = "model.connector.", load_file(converted / "model.safetensors")
    resampler.load_state_dict(
        {name.removeprefix(start): one for name, one in weights.items() if name.startswith(start)}
    )
    model.model.connector = resampler
    seeing = model.model.vision_model
    seeing.register_forward_pre_hook(resampler.note, with_kwargs=True)
    if model.config.version == "2.5":
        seeing.embeddings = PlacesInARow(seeing.embeddings)
    words = transformers.PreTrainedTokenizerFast.from_pretrained(converted)
    return model.eval(), ForIdefics2(words, float(model.config.version))
