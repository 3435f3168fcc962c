"""A tiny ERNIE 4.5 VL in its authors' format, and the same model in transformers'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file

from helpers.served.models import CHAT, N_LAYERS, PATCH, decoder, save, tokenizer
from helpers.served.native.packed import SIZES
from helpers.served.reference import CONVERTED

#: An image in a prompt; vLLM writes ERNIE_VISUAL for each of its visual tokens.
ERNIE_IMAGE = "<|IMAGE_START|> <|image@placeholder|> <|IMAGE_END|>"
ERNIE_VISUAL = "<|IMAGE_PLACEHOLDER|>"
VIDEO = "<|VIDEO_START|> <|VIDEO_PLACEHOLDER|> <|VIDEO_END|>"
#: The most and the fewest pixels of an image, under the names of the authors' processor.
PIXELS = {"min_pixels": SIZES["shortest_edge"], "max_pixels": SIZES["longest_edge"]}
#: Code in published checkpoints, because transformers does not know the type and has a different processor. Theirs
#: returns raw pixels, which vLLM normalises.
CONFIGURATION = """from transformers import PreTrainedConfig


class VisionConfig(PreTrainedConfig):
    model_type = "DFNRope_vision_transformer"


class Ernie4_5_VLMoeConfig(PreTrainedConfig):
    model_type = "ernie4_5_moe_vl"

    def __init__(self, vision_config=None, **settings):
        super().__init__(**settings)
        self.vision_config = VisionConfig(**(vision_config or {}))
"""
PROCESSING = f"""from transformers import BatchFeature, Ernie4_5_VLMoeImageProcessor, ProcessorMixin


class Images:
    def __init__(self):
        self.theirs = Ernie4_5_VLMoeImageProcessor(patch_size={PATCH}, size={SIZES})
        self.image_mean, self.image_std = self.theirs.image_mean, self.theirs.image_std
        self.rescale_factor, self.size = self.theirs.rescale_factor, {PIXELS}


class Ernie4_5_VLProcessor(ProcessorMixin):
    spatial_conv_size = temporal_conv_size = 2

    def __init__(self, tokenizer=None, chat_template=None):
        super().__init__(tokenizer, chat_template=chat_template)
        self.image_processor = Images()

    @classmethod
    def get_attributes(cls):
        return ["tokenizer"]

    def __call__(self, text=None, images=None, videos=None, return_tensors="pt", **options):
        made = self.image_processor.theirs(images, do_rescale=False, do_normalize=False, return_tensors=return_tensors)
        return BatchFeature({{"images": made["pixel_values"], "grid_thw": made["image_grid_thw"]}})
"""


def save_ernie4_5_vl(folder: Path, **settings: Any) -> None:
    """ERNIE 4.5 VL with up to 49 visual tokens, each of 2 x 2 patches. Two of three decoder layers have experts."""
    start, image, end = ERNIE_IMAGE.split()
    named = {"image_start_token": start, "image_token": image, "image_end_token": end}
    named |= dict(zip(("video_start_token", "video_token", "video_end_token"), VIDEO.split(), strict=True))
    words = tokenizer(**named)  # a visual token for transformers is an image for vLLM
    ids = {f"{name}_id": words.convert_tokens_to_ids(token) for name, token in named.items()}
    text = decoder(len(words) + 1, rms_norm_eps=1e-6, tie_word_embeddings=False, use_bias=False, **settings)
    experts = {"moe_k": 2, "moe_intermediate_size": [48, 32], "moe_num_shared_experts": 1}
    same = {"depth": N_LAYERS, "num_heads": 2, "hidden_size": 64, "in_channels": 3, "patch_size": PATCH}
    same |= {"spatial_merge_size": 2, "hidden_act": "quick_gelu"}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 6, 4]}
    kinds = ["dense", "sparse", "sparse"]
    config = transformers.Ernie4_5_VLMoeConfig(
        vision_config={**same, "intermediate_size": 128, "rms_norm_eps": 1e-6},
        text_config={**text, **experts, "moe_num_experts": 4, "mlp_layer_types": kinds, "rope_parameters": dict(rope)},
        tie_word_embeddings=False,
        **ids,
    )
    processor = transformers.Ernie4_5_VLMoeProcessor(
        image_processor=transformers.Ernie4_5_VLMoeImageProcessor(patch_size=PATCH, size=SIZES),
        tokenizer=words,
        video_processor=transformers.Ernie4_5_VLMoeVideoProcessor(patch_size=PATCH, draw_on_frames=False),
    )
    converted = folder / CONVERTED
    save(transformers.Ernie4_5_VLMoeForConditionalGeneration(config), processor, converted)
    # transformers saves the authors' names, except for the tower, which is part of the model there.
    weights = load_file(converted / "model.safetensors")
    theirs = {name.replace("model.vision_model.", "vision_model."): weight for name, weight in weights.items()}
    save_file(theirs, folder / "model.safetensors", {"format": "pt"})
    words = tokenizer(**{**named, "image_token": ERNIE_VISUAL})
    words.add_special_tokens({"additional_special_tokens": [image]})
    words.chat_template = CHAT.replace("IMAGE", ERNIE_IMAGE)
    words.save_pretrained(folder)
    code = {"AutoConfig": "configuration_ernie4_5_vl.Ernie4_5_VLMoeConfig"}
    code |= {"AutoProcessor": "processing_ernie4_5_vl.Ernie4_5_VLProcessor"}
    published = {"architectures": ["Ernie4_5_VLMoeForConditionalGeneration"], "model_type": "ernie4_5_moe_vl"}
    published |= {"auto_map": code, "im_patch_id": ids.pop("image_token_id"), **ids, "torch_dtype": "float32"}
    published |= {"moe_num_experts": [4, 4], "moe_layer_start_index": [1, 1], "moe_layer_end_index": [2, 2]}
    published |= {"rope_theta": rope["rope_theta"], "freq_allocation": 4, "hidden_act": "silu"}
    published |= {"rope_scaling": {"type": "default", "mrope_section": rope["mrope_section"]}}
    published |= {"pixel_hidden_size": 64, "spatial_conv_size": 2, "temporal_conv_size": 2, "use_temporal_conv": True}
    published |= {"vision_config": {**same, "embed_dim": 64, "mlp_ratio": 2}}
    (folder / "config.json").write_text(json.dumps({**text, **experts, **published}))
    (folder / "processor_config.json").write_text(json.dumps({"auto_map": code}))
    (folder / "configuration_ernie4_5_vl.py").write_text(CONFIGURATION)
    (folder / "processing_ernie4_5_vl.py").write_text(PROCESSING)
