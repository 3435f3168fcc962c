"""A tiny LFM3-VL as published, and the same model in a class of the tests' own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file

from helpers.served.family import LFM3_VIDEO
from helpers.served.models import CHAT, N_LAYERS, decoder, save, tokenizer

PATCH, MERGE = 16, 2
START, IMAGE, VIDEO, END = "<|vision_start|>", "<|image|>", "<|video|>", "<|vision_end|>"
LFM3_IMAGE = LFM3_VIDEO.replace(VIDEO, IMAGE)
EPSILON = 1e-5
#: Parts of names in the tests' model -> in published checkpoints.
RENAMED = {
    r"(vision_tower\..*)\.([qk])_norm\.": r"\1.\2_layernorm.",
    r"(language_model\..*)\.([qk])_layernorm\.": r"\1.\2_norm.",
    r"(language_model\..*self_attn)\.out_proj\.": r"\1.o_proj.",
}


def save_lfm3_vl(folder: Path, window: int = 4096, **settings: Any) -> None:
    """LFM3-VL with up to 49 visual tokens, each of 2 x 2 patches. Of its decoder layers, one is a short convolution and
    one has a window."""
    from helpers.served.converted.lfm3_model import Lfm3VlForConditionalGeneration

    words = tokenizer(image_token=IMAGE, video_token=VIDEO, vision_start_token=START, vision_end_token=END)
    ropes = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
    }
    text = {
        **decoder(len(words), tie_word_embeddings=False, **settings),
        "model_type": "lfm3",
        "layer_types": ["conv", "sliding_attention", "full_attention"],
        "rope_parameters": ropes,
        "sliding_window": window,
        "norm_eps": EPSILON,
    }
    vision = {
        "model_type": "lfm3_vl_vision",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "layer_types": ["conv", "full_attention", "conv"],
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "spatial_merge_size": MERGE,
        "norm_eps": EPSILON,
    }
    marks = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START}
    written = {
        "architectures": ["Lfm3VlForConditionalGeneration"],
        "model_type": "lfm3_vl",
        "text_config": text,
        "vision_config": vision,
        "projector_hidden_size": 64,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        **{name: words.convert_tokens_to_ids(mark) for name, mark in {**marks, "vision_end_token_id": END}.items()},
    }
    sizes = {"shortest_edge": (4 * PATCH) ** 2, "longest_edge": (14 * PATCH) ** 2}
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=PATCH, size=sizes, **halves),
        tokenizer=words,
        video_processor=transformers.Qwen3VLVideoProcessor(patch_size=PATCH),
        chat_template=CHAT.replace("IMAGE", LFM3_IMAGE),
    )
    model = Lfm3VlForConditionalGeneration(config_of(written))
    save(model, processor, folder)
    weights = {renamed(name): weight for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(written))


def config_of(written: dict[str, Any]) -> Any:
    """The config of the tests' model, given a published one."""
    text, vision = written["text_config"], written["vision_config"]
    kinds = ["conv" if kind == "conv" else "full_attention" for kind in text["layer_types"]]
    same = {name: value for name, value in text.items() if name not in ("model_type", "rope_parameters")}
    shared = {"block_auto_adjust_ff_dim": False, "conv_L_cache": 7, "lfm3": text}
    more: dict[str, Any] = {"video_token_id": written["video_token_id"], "attn_implementation": "sdpa"}
    return transformers.Lfm2VlConfig(
        vision_config=transformers.Siglip2VisionConfig(
            **{name: value for name, value in vision.items() if name != "model_type"}
        ),
        text_config=transformers.Lfm2Config(**{**same, **shared, "layer_types": kinds}),
        image_token_id=written["image_token_id"],
        projector_hidden_size=written["projector_hidden_size"],
        tie_word_embeddings=False,
        **more,
    )


def renamed(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def load_lfm3_vl(folder: Path) -> tuple[Any, Any]:
    """Return the tests' own model of a checkpoint, and its processor."""
    from helpers.served.converted.lfm3_model import Lfm3VlForConditionalGeneration

    model: Any = Lfm3VlForConditionalGeneration(config_of(json.loads((folder / "config.json").read_text())))
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name: weights[renamed(name)] for name in model.state_dict()})
    return model.eval(), Processor.from_pretrained(folder)


class Processor(transformers.Qwen3VLProcessor):
    """Without types of tokens, which Qwen3-VL reads."""

    def __call__(self, **given: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs = super().__call__(**given)
        del inputs["mm_token_type_ids"]
        return inputs
