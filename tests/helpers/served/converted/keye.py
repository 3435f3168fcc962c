"""A tiny Keye-VL and Keye-VL 1.5, which transformers has no class for, and the same model as a PaddleOCR-VL with norms
of queries and keys, and in 1.5 with the projector's norm after merging."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.served.converted.colors import HALVES, read_halves
from helpers.served.converted.dots import rms_norm
from helpers.served.models import N_LAYERS
from helpers.served.native.packed import rewrite, save_paddleocr_vl
from helpers.served.reference import CONVERTED

#: What the PaddleOCR-VL lacks, in its folder, under the names that Keye-VL has.
NORMS = "norms_of_keye.safetensors"
MERGED = "mlp_AR.pre_norm"
#: The widths of the tower, and of a head of the language model.
WIDTH, HEAD = 64, 32
#: What published checkpoints bring along. This processor prepares images as PaddleOCR-VL's does, and takes no videos.
CONFIGURATION = """from transformers import PreTrainedConfig, Qwen3Config


class KeyeVisionConfig(PreTrainedConfig):
    model_type = "keye_vision"


class KeyeConfig(Qwen3Config):
    model_type = "TYPE"

    def __init__(self, vision_config=None, **settings):
        super().__init__(**settings)
        self.vision_config = KeyeVisionConfig(**(vision_config or {}))
"""
PROCESSING = """from transformers import BatchFeature, ProcessorMixin


class KeyeProcessor(ProcessorMixin):
    attributes = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **settings):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token, self.video_token = "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>"
        self.edges = dict(image_processor.size)
        least, most = self.edges["shortest_edge"], self.edges["longest_edge"]
        image_processor.size = {"min_pixels": least, "max_pixels": most}

    def __call__(self, images=None, text=None, **settings):
        found = dict(self.tokenizer(text, return_tensors="pt")) if text is not None else {}
        if images is not None:
            found |= dict(self.image_processor(images, size=self.edges, return_tensors="pt"))
        return BatchFeature(found)
"""


def save_keye(folder: Path, kind: str = "Keye", **settings: Any) -> None:
    """Keye-VL with up to 49 visual tokens, each of 2 x 2 patches; `kind` as in its model_type."""
    converted = folder / CONVERTED
    save_paddleocr_vl(converted, rms_norm_eps=1e-6, **settings)
    processors = converted / "processor_config.json"
    rewrite(processors, lambda written: {**written, "image_processor": {**written["image_processor"], **HALVES}})
    norms = draw_norms(merged=kind != "Keye")
    save_file(norms, converted / NORMS)
    unused = {"visual.vision_model.embeddings.packing_position_embedding.weight": torch.zeros(32768, WIDTH)}
    weights = {**load_file(converted / "model.safetensors"), **norms, **unused}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    transformers.AutoTokenizer.from_pretrained(converted).save_pretrained(folder)
    images = json.loads(processors.read_text())["image_processor"]
    code = {"auto_map": {"AutoProcessor": "processing_keye.KeyeProcessor"}, "processor_class": "KeyeProcessor"}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": images, **code}))
    config = json.loads((converted / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    rope, _ = text.pop("rope_parameters"), vision.pop("rope_parameters", None)
    published = {
        "architectures": [f"{kind}ForConditionalGeneration"],
        "model_type": kind,
        "auto_map": {"AutoConfig": "configuration_keye.KeyeConfig"},
        "image_token_id": config["image_token_id"],
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": rope["mrope_section"]},
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vision_config": {**vision, "model_type": "keye_vision"},
    }
    (folder / "config.json").write_text(json.dumps({**text, **published}))
    (folder / "configuration_keye.py").write_text(CONFIGURATION.replace("TYPE", kind))
    (folder / "processing_keye.py").write_text(PROCESSING)


save_keye1_5 = partial(save_keye, kind="KeyeVL1_5")


def draw_norms(merged: bool) -> dict[str, Tensor]:
    """Those of queries and keys and, if `merged`, the projector's, of 2 x 2 patches."""
    generator = torch.Generator().manual_seed(1)
    names = [f"model.layers.{layer}.self_attn.{part}_norm.weight" for layer in range(N_LAYERS) for part in "qk"]
    found = {name: torch.empty(HEAD).uniform_(0.5, 1.5, generator=generator) for name in names}
    if merged:
        found[f"{MERGED}.weight"] = torch.empty(4 * WIDTH).uniform_(0.5, 1.5, generator=generator)
        found[f"{MERGED}.bias"] = torch.empty(4 * WIDTH).normal_(std=0.1, generator=generator)
    return found


def norm_as_keye(model: Any, folder: Path) -> None:
    """Make a PaddleOCR-VL the Keye-VL that was saved beside it; others have no such file."""
    from tokenprune.adapters.families.paddleocr_vl import PaddleOCRVLAdapter

    if not (folder / NORMS).exists():
        return
    read_halves(model, PaddleOCRVLAdapter)
    weights = load_file(folder / NORMS)
    norm_queries_and_keys(model, weights)
    if f"{MERGED}.weight" in weights:
        merged, projector = nn.LayerNorm(4 * WIDTH, eps=1e-5), model.model.projector
        merged.load_state_dict({name: weights[f"{MERGED}.{name}"] for name in ("weight", "bias")})
        projector.pre_norm = nn.Identity()
        projector.linear_1 = nn.Sequential(merged, projector.linear_1)


def norm_queries_and_keys(model: Any, weights: dict[str, Tensor]) -> None:
    """Give the language model of a PaddleOCR-VL the norms of a Qwen3."""
    for number, layer in enumerate(model.model.language_model.layers):
        for part in "qk":
            norm = rms_norm(weights[f"model.layers.{number}.self_attn.{part}_norm.weight"])
            projection = getattr(layer.self_attn, f"{part}_proj")
            projection.register_forward_hook(partial(_by_head, norm))


def _by_head(norm: nn.Module, module: nn.Module, given: Any, made: Tensor) -> Tensor:
    return norm(made.unflatten(-1, (-1, HEAD))).flatten(-2)
