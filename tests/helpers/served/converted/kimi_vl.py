"""A tiny Kimi-VL, for which transformers has no class, and the same model as a Kimi K2.5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file

from helpers.served.native.packed import save_kimi
from helpers.served.reference import CONVERTED

#: vLLM's CPU kernel rotates the wrong values if only part of each head is rotated.
VL_OPTIONS = {
    "trust_remote_code": True,
    "compilation_config": {"custom_ops": ["all", "-rotary_embedding"]},
}
#: Names of the tower's settings that differ: in Kimi K2.5 -> in Kimi-VL.
RENAMED = {"pos_emb_height": "init_pos_emb_height", "pos_emb_width": "init_pos_emb_width"}
#: Code in published checkpoints. This one prepares images like Kimi K2.5.
PROCESSING = """from transformers import BatchFeature, ProcessorMixin


class KimiVLProcessor(ProcessorMixin):
    attributes = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **settings):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token = "<|media_pad|>"
        image_processor.merge_kernel_size = [2, 2]
        image_processor.in_token_limit = image_processor.max_patches

    def __call__(self, images=None, text=None, **settings):
        found = dict(self.tokenizer(text, return_tensors="pt")) if text is not None else {}
        if images is not None:
            prepared = self.image_processor(images, return_tensors="pt")
            found["pixel_values"] = prepared["pixel_values"]
            found["image_grid_hws"] = prepared["image_grid_thw"][:, 1:]
        return BatchFeature(found)
"""


def save_kimi_vl(folder: Path, **settings: Any) -> None:
    """Kimi-VL with visual tokens of 2 x 2 patches."""
    converted = folder / CONVERTED
    save_kimi(converted, **settings)
    weights = load_file(converted / "model.safetensors")
    save_file({renamed(name): one for name, one in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    transformers.AutoTokenizer.from_pretrained(converted).save_pretrained(folder)
    processor = json.loads((converted / "processor_config.json").read_text())
    code = {"auto_map": {"AutoProcessor": "processing_kimi_vl.KimiVLProcessor"}, "processor_class": "KimiVLProcessor"}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor["image_processor"], **code}))
    (folder / "processing_kimi_vl.py").write_text(PROCESSING)
    config = json.loads((converted / "config.json").read_text())
    vision = {RENAMED.get(name, name): value for name, value in config["vision_config"].items()}
    published = {
        "architectures": ["KimiVLForConditionalGeneration"],
        "model_type": "kimi_vl",
        "media_placeholder_token_id": config["image_token_id"],
        "vision_config": {**vision, "model_type": "moonvit"},
        "text_config": config["text_config"],
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(published))


def renamed(name: str) -> str:
    """Return the name in Kimi-VL of a weight of Kimi K2.5."""
    for number, linear in ((0, "linear_1"), (2, "linear_2")):
        name = name.replace(f"mm_projector.proj.{number}.", f"multi_modal_projector.{linear}.")
    return name.replace("mm_projector.pre_norm.", "multi_modal_projector.pre_norm.")
