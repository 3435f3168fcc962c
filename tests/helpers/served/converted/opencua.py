"""A tiny OpenCUA, for which transformers has no class, and the same model as an EXAONE 4.5 with a Qwen2."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import transformers

from helpers.served.models import CHAT, N_LAYERS, PATCH, decoder, save, tokenizer
from helpers.served.native.packed import SIZES
from helpers.served.reference import CONVERTED

OPENCUA_IMAGE = "<|media_begin|> <|media_placeholder|> <|media_end|>"
#: Code in published checkpoints.
CONFIGURATION = """from transformers import PreTrainedConfig, Qwen2Config
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig


class OpenCUAConfig(PreTrainedConfig):
    model_type = "opencua"

    def __init__(self, vision_config=None, text_config=None, **settings):
        super().__init__(**settings)
        self.vision_config = Qwen2_5_VLVisionConfig(**(vision_config or {}))
        self.text_config = Qwen2Config(**(text_config or {}))
"""


def save_opencua(folder: Path, **settings: Any) -> None:
    """OpenCUA. One of three tower layers has windows of 2 x 2 visual tokens."""
    start, image, end = OPENCUA_IMAGE.split()
    words = tokenizer(start, end, image_token=image, video_token="<|video_pad|>")
    image_id, end_id = words.convert_tokens_to_ids([image, end])
    vision = {"depth": N_LAYERS, "num_heads": 4, "hidden_size": 64, "intermediate_size": 96, "patch_size": PATCH}
    vision |= {"window_size": 4 * PATCH, "fullatt_block_indexes": [0, 2], "out_hidden_size": 64}
    text = decoder(len(words), model_type="qwen2", **settings)
    config = transformers.Exaone4_5_Config(
        vision_config={**vision, "num_key_value_heads": 4},
        text_config=text,
        image_token_id=image_id,
        video_token_id=end_id,
        tie_word_embeddings=False,
    )
    images = transformers.Qwen2VLImageProcessor(patch_size=PATCH, size=SIZES)
    processor = transformers.Exaone4_5_Processor(
        image_processor=images,
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=PATCH),
    )
    save(transformers.Exaone4_5_ForConditionalGeneration(config), processor, folder / CONVERTED)
    shutil.copy(folder / CONVERTED / "model.safetensors", folder)
    images.save_pretrained(folder)
    words.chat_template = CHAT.replace("IMAGE", OPENCUA_IMAGE)
    words.save_pretrained(folder)
    published = {
        "architectures": ["OpenCUAForConditionalGeneration"],
        "model_type": "opencua",
        "auto_map": {"AutoConfig": "configuration_opencua.OpenCUAConfig"},
        "vision_config": vision,
        "text_config": text,
        "media_placeholder_token_id": image_id,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(published))
    (folder / "configuration_opencua.py").write_text(CONFIGURATION)


def make_processor_whole() -> None:
    """Make vLLM 0.32's processor of OpenCUA keep its parts, as vLLM 0.33's does with current transformers. Without
    them, 0.32 does not start with OpenCUA."""
    from vllm.model_executor.models.opencua import OpenCUAProcessor

    if "get_attributes" not in vars(OpenCUAProcessor):
        parts = ["image_processor", "tokenizer", "video_processor"]
        OpenCUAProcessor.get_attributes = classmethod(lambda cls: parts)
