"""Cosmos 3 and Cosmos 3 Edge as tiny models, saved as vLLM and transformers load them: vLLM reads the weights from a
folder inside."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.served.family import COSMOS_VIDEO, FAR_MROPE, M_ROPE_ENDS, Family, Far
from helpers.served.models import CHAT, QWEN_IMAGE, QWEN_VIDEO, decoder, save, save_qwen, tokenizer, tower
from helpers.served.native.packed import rewrite

PATCH = 16


def save_cosmos_edge(folder: Path, **settings: Any) -> None:
    """Cosmos 3 Edge with visual tokens of 2 x 2 patches."""
    words = tokenizer(*QWEN_IMAGE.split(), *QWEN_VIDEO.split())
    start, image, end = words.convert_tokens_to_ids(QWEN_IMAGE.split())
    vision = {**tower(0), "patch_size": PATCH, "spatial_merge_size": 2, "num_patches": 64}
    del vision["image_size"]
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]}
    projector = {"input_hidden_size": 64, "merger_intermediate_size": 96, "out_hidden_size": 64}
    named: Any = {"projector_config": projector}  # read by vLLM 0.32
    config = transformers.Cosmos3EdgeConfig(
        vision_config=vision,
        text_config=decoder(len(words), rope_parameters=rope, **settings),
        projector_hidden_size=96,
        **named,
        image_token_id=image,
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    sizes = {"shortest_edge": (4 * PATCH) ** 2, "longest_edge": (14 * PATCH) ** 2}
    processor = transformers.Cosmos3EdgeProcessor(
        image_processor=transformers.Cosmos3EdgeImageProcessor(patch_size=PATCH, size=sizes),
        tokenizer=words,
        video_processor=transformers.Cosmos3EdgeVideoProcessor(patch_size=PATCH),
        chat_template=CHAT.replace("IMAGE", QWEN_IMAGE),
    )
    save(transformers.Cosmos3EdgeForConditionalGeneration(config), processor, folder, published_tower)
    copy_inside(folder)


def published_tower(name: str, weight: Tensor) -> tuple[str, Tensor]:
    """Rename the linear layers of Cosmos 3 Edge's tower, which transformers saves under the names of the decoder's."""
    if name.startswith("model.visual."):
        name = name.replace(".mlp.up_proj.", ".mlp.fc1.").replace(".mlp.down_proj.", ".mlp.fc2.")
    return name, weight


def save_cosmos(folder: Path, **settings: Any) -> None:
    """Cosmos 3: Qwen3-VL under another type, with weights whose names are shorter."""
    save_qwen(folder, "qwen3_vl", **settings)
    weights = load_file(folder / "model.safetensors")
    published = {re.sub(r"^model\.(language_model|visual)\.", "", name): weight for name, weight in weights.items()}
    save_file(published, folder / "model.safetensors", {"format": "pt"})
    named = {"model_type": "cosmos3_omni", "architectures": ["Cosmos3OmniForConditionalGeneration"]}
    rewrite(folder / "config.json", lambda written: {**written, **named})
    copy_inside(folder)


def copy_inside(folder: Path) -> None:
    """Put the weights where vLLM reads them."""
    (folder / "transformer").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "transformer")


FAMILIES = (
    Family("cosmos3_omni", "TokenPruneCosmos3", save_cosmos, QWEN_IMAGE, QWEN_VIDEO, FAR_MROPE),
    # vLLM 0.32 resizes images lower than a visual token, 32 pixels, differently from transformers.
    Family(
        "cosmos3_edge",
        "TokenPruneCosmos3Edge",
        save_cosmos_edge,
        QWEN_IMAGE,
        COSMOS_VIDEO,
        Far(64, 7, (1376, 32), raises=M_ROPE_ENDS),
    ),
)
