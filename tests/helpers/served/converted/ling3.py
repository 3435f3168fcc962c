"""A tiny Ling 3.0 VL, for which transformers has no class, and the same model as a Qwen3-VL with another projector.

Its own language model runs only on GPUs. Here, vLLM's Ling 3.0 VL has that of Qwen3-VL."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import decoders
from torch import Tensor, nn

from helpers.served.models import CHAT, N_LAYERS, decoder, save, tokenizer
from helpers.served.reference import CONVERTED

NAME = "TokenPruneLing3VL"
#: vLLM adds these marks to an image's token if something is between them.
LING_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
LING_VISUAL = "<|image_pad|>"
PATCH, WIDTH = 16, 64
#: A file with the projector, in the folder of the Qwen3-VL that has another one.
PROJECTOR = "projector.safetensors"


def save_ling3_vl(folder: Path, **settings: Any) -> None:
    """Ling 3.0 VL with up to 49 visual tokens, each of 2 x 2 patches."""
    marks = ("<|vision_start|>", "<|vision_end|>", LING_VISUAL, "<|video_pad|>")
    words = tokenizer(*marks)
    # vLLM decodes and encodes a prompt: words must have spaces around them, and marks must not.
    words.backend_tokenizer.decoder = decoders.Sequence([decoders.Replace("w", " w"), decoders.Fuse()])
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = dict(zip(names, words.convert_tokens_to_ids(list(marks)), strict=True))
    section = [6, 5, 5]
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section, "mrope_interleaved": True}
    text = decoder(len(words), rope_parameters=rope, tie_word_embeddings=False, rms_norm_eps=1e-6, **settings)
    vision = {"depth": N_LAYERS, "num_heads": 2, "patch_size": PATCH, "hidden_size": WIDTH, "intermediate_size": 96}
    vision |= {"out_hidden_size": WIDTH, "num_position_embeddings": 64}
    config = transformers.Qwen3VLConfig(
        vision_config={**vision, "deepstack_visual_indexes": []}, text_config=text, tie_word_embeddings=False, **ids
    )
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    sizes = {"shortest_edge": (4 * PATCH) ** 2, "longest_edge": (14 * PATCH) ** 2}
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=PATCH, size=sizes, **halves),
        tokenizer=words,
        video_processor=transformers.Qwen3VLVideoProcessor(patch_size=PATCH),
        chat_template=CHAT.replace("IMAGE", LING_IMAGE),
    )
    converted = folder / CONVERTED
    save(transformers.Qwen3VLForConditionalGeneration(config), processor, converted)
    projector = draw_projector()
    save_file(projector, converted / PROJECTOR)
    processor.save_pretrained(folder)
    weights = load_file(converted / "model.safetensors")
    theirs = {
        name.replace("model.language_model.", "model."): weight
        for name, weight in weights.items()
        if "merger.linear" not in name
    }
    theirs |= {f"model.linear_proj.{name}": weight for name, weight in projector.items()}
    save_file(theirs, folder / "model.safetensors", {"format": "pt"})
    published = {
        "architectures": ["BailingMoeV3VLForConditionalGeneration"],
        "model_type": "bailing_moe_v3_vl",
        "mrope_section": section,
        "vision_config": vision,
        "text_config": {"layer_group_size": 1, **text},  # no linear attention
        "torch_dtype": "float32",
        **ids,
    }
    (folder / "config.json").write_text(json.dumps(published))


def draw_projector() -> dict[str, Tensor]:
    """Draw the projector's weights, under their names in a sequence of modules."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.empty(shape).normal_(std=0.15, generator=generator)

    first = {"0.weight": drawn(WIDTH, 4 * WIDTH), "0.bias": drawn(WIDTH)}
    return {**first, "2.weight": drawn(WIDTH, WIDTH), "2.bias": drawn(WIDTH)}


def see_as_ling3(model: Any, folder: Path) -> None:
    """Give a Qwen3-VL the projector that was saved with it. Does nothing without that file."""
    if not (folder / PROJECTOR).exists():
        return
    weights, merger = load_file(folder / PROJECTOR), model.model.visual.merger
    merger.linear_fc1, merger.linear_fc2 = nn.Linear(4 * WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    for number, layer in ((0, merger.linear_fc1), (2, merger.linear_fc2)):
        layer.load_state_dict({part: weights[f"{number}.{part}"] for part in ("weight", "bias")})


def run_ling3_on_cpus() -> None:
    """Make vLLM build Ling 3.0 VL with the language model of Qwen3-VL, which has no state."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(NAME, stand_in())


@cache
def stand_in() -> Any:
    from vllm.model_executor.models import bailing_moe_v3_vl
    from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

    from tokenprune.serving.vllm.models.ling3_vl import PrunedLing3VL

    class StandIn(PrunedLing3VL):
        is_hybrid = has_inner_state = False

        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            with patch.object(bailing_moe_v3_vl, "BailingMoeV3ForCausalLM", Qwen3ForCausalLM):
                super().__init__(vllm_config=vllm_config, prefix=prefix)

    return StandIn
