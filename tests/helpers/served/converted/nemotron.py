"""Tiny Nemotrons as published, whose types transformers does not know or reads differently, and the same models in its
format. If a published one cuts images into tiles, transformers gets each tile as an image."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache, wraps
from inspect import unwrap
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

from helpers.served.converted.internvl import CHAT_OPTIONS
from helpers.served.models import CHAT, IMAGE, N_LAYERS, PATCH, decoder, save, tokenizer
from helpers.served.reference import CONVERTED

#: vLLM's architectures. Except for the last one, they are also the types.
NANO_VL, NANO_OMNI, SUPER_OMNI, OMNI = NAMES = (
    "NemotronH_Nano_VL_V2",
    "NemotronH_Nano_Omni_Reasoning_V3",
    "NemotronH_Super_Omni_Reasoning_V3",
    "NemotronH_Omni_Reasoning_V3",
)
VIDEO = "<video>"
START, END = "<img>", "</img>"
#: The tower: its name, and the side in pixels of the largest image with its own position embeddings.
TOWER, LARGEST = "vit_tiny", 16 * PATCH
WIDTH, N_HEADS, MLP_WIDTH = 64, 2, 96
#: The side in pixels of a tile of 2 x 2 visual tokens, and the most tiles of an image, without the overview.
TILE, MOST_TILES = 4 * PATCH, 12
#: The fewest and the most patches of an image.
LEAST, MOST = 16, 196
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: Options for an engine. By default, vLLM 0.34 rounds resized images to whole bytes, and transformers does not.
NEMOTRON_OPTIONS = {**CHAT_OPTIONS, "mm_device_do_normalize": False}
#: Options for an engine on a CPU whose steps exceed a block of the KV cache: vLLM's kernel for state-space layers does
#: not return the state at the end of a block.
UNCACHED = {**NEMOTRON_OPTIONS, "enable_prefix_caching": False}
#: Code in published checkpoints.
CONFIGURATION = """from transformers import AutoConfig, PreTrainedConfig


class RADIOConfig(PreTrainedConfig):
    model_type = "radio"


class NemotronConfig(PreTrainedConfig):
    model_type = "TYPE"

    def __init__(self, vision_config=None, llm_config=None, **settings):
        super().__init__(**settings)
        self.vision_config = RADIOConfig(**(vision_config or {}))
        self.llm_config = AutoConfig.for_model(**(llm_config or {"model_type": "nemotron_h"}))

    @property
    def text_config(self):
        return self.llm_config
"""


def save_nemotron(folder: Path, name: str = NANO_OMNI, **settings: Any) -> None:
    """A Nemotron of an architecture: all but Nano VL have experts, and up to 49 visual tokens."""
    words = tokenizer(START, END, IMAGE, VIDEO)
    layers = ["linear_attention", "full_attention", "mlp", "linear_attention", "full_attention"]
    experts: dict[str, Any] = {}
    if name != NANO_VL:
        layers.insert(3, "moe")
        experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
        experts |= {"moe_shared_expert_intermediate_size": 48, "routed_scaling_factor": 2.0}
    states = {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2, "chunk_size": 16}
    # In a prompt, transformers clamps time steps to the least one, vLLM does not.
    text = decoder(len(words), layers_block_type=layers, time_step_min=1e-9, **states, **experts, **settings)
    del text["num_hidden_layers"]
    vision = {"hidden_size": WIDTH, "num_hidden_layers": N_LAYERS, "num_attention_heads": N_HEADS, "patch_size": PATCH}
    vision |= {"mlp_ratio": MLP_WIDTH / WIDTH, "image_size": TILE, "max_img_size": LARGEST}
    vision |= {"num_cls_tokens": 2, "num_registers": 2, "video_temporal_patch_size": 2}
    image = words.convert_tokens_to_ids(IMAGE)
    config = transformers.NemotronH_Omni_Reasoning_V3_Config(
        vision_config=vision,
        text_config=text,
        projector_hidden_size=32,
        vision_hidden_size=WIDTH,
        image_token_id=image,
    )
    sizes = {"min_num_patches": LEAST, "max_num_patches": MOST}
    processor = transformers.NemotronH_Omni_Reasoning_V3Processor(
        image_processor=transformers.NemotronH_Omni_Reasoning_V3ImageProcessor(patch_size=PATCH, **sizes),
        video_processor=transformers.NemotronH_Omni_Reasoning_V3VideoProcessor(
            patch_size=PATCH, norm_mean=list(MEAN), norm_std=list(STD)
        ),
        tokenizer=words,
        feature_extractor=transformers.Wav2Vec2FeatureExtractor(),  # not used; the model's own needs another package
    )
    model = transformers.NemotronH_Omni_Reasoning_V3(config)
    for part, weight in model.named_parameters():
        if part.endswith(".dt_bias"):  # transformers draws it without a seed
            weight.data.copy_(torch.linspace(-2, 1, len(weight)))
    save(model, processor, folder / CONVERTED)  # its weights have the published names
    weights = load_file(folder / CONVERTED / "model.safetensors")
    if name == NANO_VL:  # whose tower embeds a frame like an image
        weights = {part: weight for part, weight in weights.items() if "video" not in part}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    words.chat_template = CHAT.replace("IMAGE", IMAGE)
    words.save_pretrained(folder)
    model_type = "nemotron_h_omni" if name == OMNI else name
    (folder / "configuration_nemotron.py").write_text(CONFIGURATION.replace("TYPE", model_type))
    (folder / "config.json").write_text(json.dumps({**published(config, name), "model_type": model_type}))


def published(config: Any, name: str) -> dict[str, Any]:
    """Return the config.json of a published checkpoint, given transformers' config."""
    teachers = [{"name": "clip", "use_summary": True}, {"name": "sam", "use_summary": False}]
    args: dict[str, Any] = {"model": TOWER, "cpe_max_size": LARGEST, "teachers": teachers}
    args |= {"cls_token_per_teacher": True, "register_multiple": 4}
    vision: dict[str, Any] = {"patch_size": PATCH, "preferred_resolution": [LARGEST // 2] * 2}
    if name != NANO_VL:
        args |= {"min_num_patches": LEAST, "max_num_patches": MOST}
        vision |= {"video_temporal_patch_size": 2, "separate_video_embedder": True}
    text = {**config.text_config.to_dict(), "architectures": ["NemotronHForCausalLM"], "dtype": "float32"}
    del text["time_step_limit"]  # infinite, which JSON does not have
    return {
        "architectures": [name],
        "auto_map": {"AutoConfig": "configuration_nemotron.NemotronConfig"},
        "vision_config": {**vision, "args": args},
        "llm_config": text,
        "force_image_size": TILE,
        "patch_size": PATCH,
        "downsample_ratio": config.downsample_ratio,
        "use_thumbnail": True,
        "ps_version": "v2",
        "template": "",
        "image_tag_type": "internvl",
        "vit_hidden_size": WIDTH,
        "projector_hidden_size": config.projector_hidden_size,
        "norm_mean": MEAN,
        "norm_std": STD,
        "img_context_token_id": config.image_token_id,
        "torch_dtype": "float32",
    }


@cache
def run_nemotron_on_cpus() -> None:
    """Make vLLM build the tiny tower, keep its output in float32 instead of rounding it to bfloat16, and run experts
    without a gate, for which it has no CPU kernel."""
    from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    from vllm.model_executor.models import nano_nemotron_vl
    from vllm.transformers_utils.configs.radio import VIT_TIMM_DIM_BY_NAME

    from tokenprune.serving.vllm.towers.radio import SIZES

    class InFloat32:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, "float32" if name == "bfloat16" else name)

    VIT_TIMM_DIM_BY_NAME[TOWER] = (WIDTH, N_LAYERS, N_HEADS, MLP_WIDTH)
    SIZES[TOWER] = (N_LAYERS, N_HEADS)
    nano_nemotron_vl.torch = InFloat32()
    kind: Any = CPUUnquantizedExperts
    supports, prepare, apply = kind._supports_activation, kind.process_weights_after_loading, kind.apply
    check = FusedMoEConfig.__post_init__

    def check_others(self: Any) -> None:
        with suppress(NotImplementedError):  # raised last
            check(self)

    def prepare_gated(self: Any, layer: Any) -> None:
        if self.moe_config.is_act_and_mul:
            prepare(self, layer)

    def apply_any(self: Any, *, output: Tensor, **given: Any) -> None:
        if self.moe_config.is_act_and_mul:
            apply(self, output=output, **given)
        else:
            output.copy_(mixed(*(given[one] for one in ("hidden_states", "w1", "w2", "topk_weights", "topk_ids"))))

    FusedMoEConfig.__post_init__ = check_others
    kind._supports_no_act_and_mul = staticmethod(lambda: True)
    kind._supports_activation = staticmethod(lambda one: supports(one) or one.value == "relu2_no_mul")
    kind.process_weights_after_loading, kind.apply = prepare_gated, apply_any


def mixed(states: Tensor, up: Tensor, down: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """Return the output (tokens, width) of experts without a gate, with each token in its `chosen` experts."""
    inner = torch.einsum("tw,emw->tem", states, up).relu().square()
    made = torch.einsum("tem,ewm->tew", inner, down)
    return (made[torch.arange(len(states))[:, None], chosen.long()] * weights[..., None]).sum(1)


def see_tiles(model: Any, processor: Any) -> Any:
    """Make a model in transformers prune the tiles of an image together, and return a processor that makes tiles."""
    from tokenprune.adapters.families.nemotron import NemotronOmniAdapter
    from tokenprune.tokens import Layout

    # Earlier models of this process may have replaced `layouts` already.
    encode, layouts = type(model).get_image_features, unwrap(NemotronOmniAdapter.layouts)

    @wraps(encode)
    def joined(self: Any, *args: Any, **named: Any) -> Any:
        found = encode(self, *args, **named)
        tiles = iter(found.pooler_output)
        found.pooler_output = tuple(torch.cat([*islice(tiles, n)]) for n in self.tile_counts)
        return found

    @wraps(layouts)
    def of_images(self: Any, *args: Any) -> list[Layout]:
        found = iter(layouts(self, *args))
        counts = getattr(self.model, "tile_counts", None)
        return [*found] if counts is None else [Layout.concat([*islice(found, n)]) for n in counts]

    model.__class__ = type(type(model).__name__, (type(model),), {"get_image_features": joined})
    NemotronOmniAdapter.layouts = of_images
    return Tiling(model, processor.tokenizer)


class Tiling:
    """A processor whose images are tiles and, unless they are one tile, an overview."""

    def __init__(self, model: Any, words: Any) -> None:
        self.model, self.words = model, words

    def __call__(self, text: list[str], images: Any = None, **named: Any) -> Any:
        tiles = [tiles_of(image) for image in images or ()]
        (prompt,) = text
        for each in tiles:
            visual = " ".join(["VISUAL"] * (len(each) * (TILE // PATCH // 2) ** 2))
            prompt = prompt.replace(IMAGE, f"{START} {visual} {END}", 1)
        inputs = transformers.BatchFeature(self.words([prompt.replace("VISUAL", IMAGE)], **named))
        self.model.tile_counts = [len(each) for each in tiles]
        if tiles:
            pattern = "tile channel (row y) (column x) -> (tile row column) (channel y x)"
            inputs["pixel_values"] = rearrange(torch.cat(tiles), pattern, y=PATCH, x=PATCH)
            inputs["image_grid_hw"] = torch.tensor([[TILE // PATCH] * 2] * sum(self.model.tile_counts))
        return inputs


def tiles_of(image: Any) -> Tensor:
    """Return the tiles of an image, (tiles, channels, height, width)."""
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(one)[:, None, None] for one in (MEAN, STD))

    def resized(height: int, width: int) -> Tensor:
        return (interpolate(pixels, (height, width), mode="bicubic", antialias=True) / 255 - mean) / std

    columns, rows = get_optimal_tiled_canvas((image.height, image.width), (TILE, TILE), 1, MOST_TILES)
    pattern = "1 channel (row y) (column x) -> (row column) channel y x"
    tiles = rearrange(resized(rows * TILE, columns * TILE), pattern, row=rows, column=columns)
    return tiles if len(tiles) == 1 else torch.cat([tiles, resized(TILE, TILE)])
