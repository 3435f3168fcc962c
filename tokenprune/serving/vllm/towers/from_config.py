"""Vision towers as vLLM builds them, described by a model's config alone."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from tokenprune.adapters.families import (
    cohere_vision,
    cosmos3_edge,
    deepseek_ocr2,
    gemma4,
    kimi,
    lfm2_vl,
    lfm3_vl,
    llama4,
    minicpm,
    minimax_m3,
    molmo2,
    muse,
    nemotron,
    step3p7,
    unlimited_ocr,
)
from tokenprune.adapters.towers import TOWERS, Tower, tower_of
from tokenprune.adapters.towers.qwen import NORMED_TOWER, QWEN2_5_TOWER, QWEN2_TOWER, QWEN3_TOWER
from tokenprune.adapters.towers.siglip_packed import HUNYUAN_TOWER, PADDLE_TOWER
from tokenprune.adapters.towers.tower import HALVES
from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.towers import radio

#: The tower of PaddleOCR-VL, for images that are normalised as for SigLIP.
KEYE_TOWER = replace(PADDLE_TOWER, normalisation=HALVES)
#: The tower of Qwen2.5-VL, the same.
OVIS_TOWER = replace(QWEN2_5_TOWER, normalisation=HALVES)
#: Towers that get the patches of all images in one sequence, by the model's type.
SEQUENCE_TOWERS = {
    "qwen2_vl": QWEN2_TOWER,
    "qwen2_5_vl": QWEN2_5_TOWER,
    "qwen3_vl": QWEN3_TOWER,
    "qwen3_vl_moe": QWEN3_TOWER,
    "qwen3_5": QWEN3_TOWER,
    "qwen3_5_moe": QWEN3_TOWER,
    "intern_s2_preview": QWEN3_TOWER,
    "interns2_mobius": QWEN3_TOWER,
    "qwen4_exp": QWEN3_TOWER,
    "bailing_moe_v3_vl": QWEN3_TOWER,
    "glm4v": QWEN2_TOWER,
    "glm4v_moe": QWEN2_TOWER,
    "glm_ocr": NORMED_TOWER,
    "glm5_next": NORMED_TOWER,
    "cohere_compass": QWEN3_TOWER,
    "dots_ocr": QWEN2_TOWER,
    "ernie4_5_moe_vl": QWEN2_TOWER,
    "llava_onevision2": QWEN2_TOWER,
    "opencua": QWEN2_5_TOWER,
    "vlm": QWEN2_5_TOWER,
    "ovis2_5": OVIS_TOWER,
    "ovis2_6": OVIS_TOWER,
    "ovis2_6_moe": OVIS_TOWER,
    "exaone4_5": QWEN2_5_TOWER,
    "lfm3_vl": lfm3_vl.TOWER,
    "minimax_m3_vl": minimax_m3.TOWER,
    "cosmos3_omni": QWEN3_TOWER,
    "qwen2_5_omni_thinker": QWEN2_5_TOWER,
    "qwen3_omni_moe_thinker": QWEN3_TOWER,
}
#: Other towers, each of one family only.
OWN_TOWERS = {
    "Keye": KEYE_TOWER,
    "KeyeVL1_5": KEYE_TOWER,
    "cohere2_vision": cohere_vision.TOWER,
    "cosmos3_edge": cosmos3_edge.TOWER,
    "deepseek_ocr": unlimited_ocr.TOWER,
    "deepseek_ocr2": deepseek_ocr2.TOWER,
    "gemma4": gemma4.TOWER,
    "hunyuan_vl": HUNYUAN_TOWER,
    "interns1": TOWERS["internvl_vision"],
    "internvl_chat": TOWERS["internvl_vision"],
    "isaac": KEYE_TOWER,
    "kimi_k25": kimi.TOWER,
    "kimi_k3": kimi.TOWER,
    "kimi_k31": kimi.TOWER,
    "kimi_vl": kimi.TOWER,
    "lfm2_vl": lfm2_vl.TOWER,
    "llama4": llama4.TOWER,
    "minicpm_ocr": minicpm.TOWER,
    "minicpmo": TOWERS["idefics2_vision"],
    "minicpmv": TOWERS["idefics2_vision"],
    "minicpmv4_6": minicpm.TOWER,
    "minicpmv4_7": minicpm.TOWER,
    "molmo2": molmo2.TOWER,
    "muse_glimmer": muse.TOWER,
    "paddleocr_vl": PADDLE_TOWER,
    "pixtral": TOWERS["pixtral"],
    "qianfan_ocr": TOWERS["qianfan_ocr_vision"],
    "step3p7": step3p7.TOWER,
    "step_robotics": step3p7.TOWER,
    "unlimited-ocr": unlimited_ocr.TOWER,
}
#: What layers do that cannot be read, unless they are convolutions.
WINDOWED = "attends within small windows"
#: Of the second encoder that vLLM builds for DeepSeek-OCR 2: published configs say only how wide it is.
QWEN2_LAYERS = 24

#: Models whose tower is RADIO.
RADIO_MODELS = (
    "NemotronH_Nano_VL_V2",
    "NemotronH_Nano_Omni_Reasoning_V3",
    "NemotronH_Super_Omni_Reasoning_V3",
    "nemotron_h_omni",
)


def config_with_tower(config: Any) -> Any:
    """The part of a model's config that has its vision tower: the thinker's in Qwen-Omni, elsewhere the whole; for
    Molmo 2, Ovis 2.5, MiniMax M3, DeepSeek-OCR and Isaac under transformers' names."""
    if hasattr(config, "vit_config"):
        return _of_molmo2(config) if hasattr(config, "adapter_config") else _of_ovis2_5(config)
    if isinstance(getattr(getattr(config, "vision_config", None), "width", None), Mapping):
        return _of_deepseek_ocr(config)
    if hasattr(getattr(config, "vision_config", None), "pixel_shuffle_scale_factor"):
        return _of_isaac(config)
    seeing = getattr(config, "thinker_config", config)
    published = getattr(seeing, "vision_config", None)
    return _of_minimax_m3(seeing, published) if isinstance(published, Mapping) else seeing


def _of_molmo2(config: Any) -> Any:
    """Molmo 2's config in transformers' format, whose tower ends with the last pooled layer: published checkpoints have
    no later ones, and vLLM builds none."""
    named, vision = copy(config), copy(config.vit_config)
    vision.num_hidden_layers = 1 + max(layer % vision.num_hidden_layers for layer in config.adapter_config.vit_layers)
    named.vision_config = vision
    return named


def _of_deepseek_ocr(config: Any) -> Any:
    """The config of a DeepSeek-OCR or Unlimited-OCR with the second of its encoders, which is read, and the type that
    vLLM gives it."""
    named = copy(config)
    clip = config.vision_config.width.get("clip-l-14-224")
    if clip is None:
        named.model_type, named.vision_config = "deepseek_ocr2", SimpleNamespace(num_hidden_layers=QWEN2_LAYERS)
    else:
        named.model_type, named.vision_config = "deepseek_ocr", SimpleNamespace(**clip)
    return named


def _of_ovis2_5(config: Any) -> Any:
    """Ovis 2.5's config with the names that Qwen2.5-VL's has. If no layer is named, none has windows."""
    named, vision = copy(config), copy(config.vit_config)
    vision.spatial_merge_size = vision.hidden_stride
    whole = vision.fullatt_block_indexes
    vision.fullatt_block_indexes = None if whole is None else [*map(int, whole.split("|"))]
    named.vision_config = vision
    return named


def _of_isaac(config: Any) -> Any:
    """Isaac's config with the name that PaddleOCR-VL's has for how many patches are merged along each side."""
    named, vision = copy(config), copy(config.vision_config)
    vision.spatial_merge_size = vision.pixel_shuffle_scale_factor
    named.vision_config = vision
    return named


def _of_minimax_m3(config: Any, published: Mapping[str, Any]) -> Any:
    """MiniMax M3's config in transformers' format: for published checkpoints, vLLM describes its tower by a dict."""
    sizes = {"spatial_merge_size": 2, "temporal_patch_size": 2, **published.get("img_token_compression_config", {})}
    named = copy(config)
    named.vision_config = SimpleNamespace(**{**published, **sizes})
    return named


def tower_of_config(config: Any) -> Tower:
    """How the vision tower of a model is read. Raises UnsupportedError for one that vLLM cannot build."""
    if config.model_type in RADIO_MODELS:
        return replace(nemotron.TOWER, n_prefix=radio.n_prefix(config.vision_config))
    known = {**SEQUENCE_TOWERS, **OWN_TOWERS}
    if config.model_type in known:
        return known[config.model_type]
    return tower_of(config.vision_config.model_type, config.architectures[0])


def transformers_class(model_type: str) -> str:
    """The name of transformers' class for a model type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type]


def encoder_layer(config: Any, layer: int | None) -> int:
    """The index of the encoder layer that a strategy's `layer` means; None means the one whose output the projector
    gets or, with windows, the last one without. Raises UnsupportedError for a layer that does not exist or cannot be
    read."""
    kinds = getattr(config.vision_config, "layer_types", None)
    windowed = kinds is not None or config.model_type in SEQUENCE_TOWERS
    n_layers = n_hidden_layers(config.vision_config)
    readable = unwindowed_layers(config.vision_config) if windowed else list(range(n_built_layers(config)))
    if not readable:
        raise UnsupportedError(
            "no layer of this vision tower can be read. Use a strategy that reads no vision attention, such as Grid or "
            "DivPrune."
        )
    number = readable[-1] if layer is None else layer
    if not -n_layers <= number < n_layers:
        raise UnsupportedError(f"layer={layer} is not in the vision tower: write 0 to {n_layers - 1}.")
    number %= n_layers
    if number not in readable:
        instead = "has a convolution in place of attention" if kinds and kinds[number] == "conv" else WINDOWED
        reason = (
            f"{instead}, so it does not compare the patches of an image"
            if windowed
            else f"is not built by vLLM, which stops after layer {readable[-1]}, whose output the projector gets"
        )
        raise UnsupportedError(
            f"layer={layer} of this vision tower {reason}. Write null for layer {readable[-1]}, or one of "
            f"{', '.join(map(str, readable))}."
        )
    return number


def n_built_layers(config: Any) -> int:
    """How many layers of a LLaVA-like tower vLLM builds: up to the last one whose output the projector gets, which is
    the tower's last where the config names none."""
    last = -2 if getattr(config, "drop_vision_last_layer", False) else -1  # in MiniCPM-V
    states = getattr(config, "vision_feature_layer", getattr(config, "select_layer", last))
    if config.model_type == "granite4_vision":
        states = [config.spatial_vision_layer, *(state for state, _ in config.deepstack_layer_map or ())]
    n_layers = n_hidden_layers(config.vision_config)
    return max(
        state if state >= 0 else n_layers + 1 + state for state in ([states] if isinstance(states, int) else states)
    )


def unwindowed_layers(vision_config: Any) -> list[int]:
    """The layers of a tower with windows that attend to whole images."""
    kinds, named = (getattr(vision_config, name, None) for name in ("layer_types", "fullatt_block_indexes"))
    every = range(n_hidden_layers(vision_config))
    if kinds is not None:
        return [number for number in every if kinds[number] == "full_attention"]
    return [*every] if named is None else sorted({*named} & {*every})


def n_hidden_layers(vision_config: Any) -> int:
    """How many layers a vision tower has."""
    if (size := radio.size(vision_config)) is not None:
        return size[0]
    return _first(vision_config, "num_hidden_layers", "depth", "layers", "vt_num_hidden_layers")


def n_heads(vision_config: Any) -> int:
    """How many heads the attention of a vision tower has."""
    if (size := radio.size(vision_config)) is not None:
        return size[1]
    return _first(vision_config, "num_attention_heads", "num_heads", "heads", "vt_num_attention_heads")


def _first(vision_config: Any, *names: str) -> int:
    """The value of the first of several names that a config has: transformers', or those of a checkpoint's code."""
    return next(value for name in names if (value := getattr(vision_config, name, None)))
