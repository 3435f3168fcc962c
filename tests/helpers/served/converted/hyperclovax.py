"""A tiny HyperCLOVA X in its authors' format, which vLLM reads, and in transformers'."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file

from helpers.served.models import CHAT, N_LAYERS, PATCH, WORDS, decoder, save, tokenizer
from helpers.served.native.packed import SIZES
from helpers.served.reference import CONVERTED

HYPERCLOVAX_IMAGE = "<|image_start|> <|IMAGE_PAD|> <|image_end|>"
HYPERCLOVAX_VIDEO = "<|video_start|> <|VIDEO_PAD|> <|video_end|>"
#: Code in published checkpoints.
CONFIGURATION = """from transformers import HyperCLOVAXConfig, PreTrainedConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig


class VLMConfig(PreTrainedConfig):
    model_type = "vlm"

    def __init__(self, vision_config=None, text_config=None, **settings):
        super().__init__(**settings)
        self.vision_config = Qwen2_5_VLVisionConfig(**(vision_config or {}))
        self.text_config = HyperCLOVAXConfig(**(text_config or {}))
"""


def save_hyperclovax(folder: Path, **settings: Any) -> None:
    """HyperCLOVA X. One of three tower layers has windows of 2 x 2 visual tokens."""
    image, video = HYPERCLOVAX_IMAGE.split(), HYPERCLOVAX_VIDEO.split()
    # transformers loads the tokenizer as byte-level BPE, in which only special tokens stay whole.
    whole = {f"token_{n}": one for n, one in enumerate((image[0], image[2], video[0], video[2], *WORDS))}
    words = tokenizer(image_token=image[1], video_token=video[1], **whole)
    ids = {
        "image_token_id": words.convert_tokens_to_ids(image[1]),
        "video_token_id": words.convert_tokens_to_ids(video[1]),
    }
    vision = {"depth": N_LAYERS, "num_heads": 2, "hidden_size": 64, "intermediate_size": 96, "patch_size": PATCH}
    vision |= {"window_size": 4 * PATCH, "fullatt_block_indexes": [0, 2], "out_hidden_size": 80}
    scales = {"attention_multiplier": 0.2, "embedding_multiplier": 1.5, "residual_multiplier": 0.8}
    scales |= {"logits_scaling": 0.5, "use_post_norm": True}
    text = decoder(len(words), model_type="hyperclovax", tie_word_embeddings=False, **scales, **settings)
    config = transformers.HyperCLOVAXVisionV2Config(
        vision_config={**vision, "model_type": "qwen2_5_vl"}, text_config=text, tie_word_embeddings=False, **ids
    )
    processor = transformers.HyperCLOVAXVisionV2Processor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=PATCH, size=SIZES),
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=PATCH),
        chat_template=CHAT.replace("IMAGE", HYPERCLOVAX_IMAGE),
    )
    converted = folder / CONVERTED
    save(transformers.HyperCLOVAXVisionV2ForConditionalGeneration(config), processor, converted)
    processor.save_pretrained(folder)
    theirs = {published(name): weight for name, weight in load_file(converted / "model.safetensors").items()}
    save_file(theirs, folder / "model.safetensors", {"format": "pt"})
    written = {
        "architectures": ["HCXVisionV2ForCausalLM"],
        "model_type": "vlm",
        "auto_map": {"AutoConfig": "configuration_vlm.VLMConfig"},
        "vision_config": {**vision, "model_type": "qwen2_5_vl"},
        "text_config": {**text, "architectures": ["HyperCLOVAXForCausalLM"]},
        "torch_dtype": "float32",
        **ids,
    }
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "configuration_vlm.py").write_text(CONFIGURATION)


def published(name: str) -> str:
    """Return the name of a weight in published checkpoints, given the one that transformers saves."""
    name = re.sub(r"language_model\.(?!lm_head)", "language_model.model.", name)
    return name.replace("vision_projector", "mm_projector")
