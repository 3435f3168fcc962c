"""Vision towers as vLLM builds them, described by a model's config alone."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from tokenprune.adapters.families import nemotron
from tokenprune.adapters.towers import TOWERS, Tower, tower_of
from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.architecture import Architecture
from tokenprune.serving.vllm.towers import radio

#: What layers do that cannot be read, unless they are convolutions.
WINDOWED = "attends within small windows"


def config_with_tower(config: Any) -> Any:
    """The part of a model's config that has its vision tower, under transformers' names: the thinker's in Qwen-Omni,
    elsewhere the whole."""
    seeing = getattr(config, "thinker_config", config)
    record = _record(seeing)
    return seeing if record is None or record.described is None else record.described(seeing)


def _record(config: Any) -> Architecture | None:
    """The record that describes the vision tower of models with this config; None if none does."""
    every = (record for record in ARCHITECTURES.values() if config.model_type in (record.model_type, record.tower_type))
    return next(every, None)


def tower_of_config(config: Any) -> Tower:
    """How the vision tower of a model is read. Raises UnsupportedError for one that vLLM cannot build."""
    record = _record(config)
    if record is None or record.tower is None:
        return tower_of(config.vision_config.model_type, config.architectures[0])
    module, _, name = record.tower.partition(":")
    tower = getattr(import_module(f"tokenprune.adapters.{module}"), name) if name else TOWERS[module]
    return replace(tower, n_prefix=radio.n_prefix(config.vision_config)) if tower is nemotron.TOWER else tower


def transformers_class(model_type: str) -> str:
    """The name of transformers' class for a model type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type]


def encoder_layer(config: Any, layer: int | None) -> int:
    """The index of the encoder layer that a strategy's `layer` means; None means the one whose output the projector
    gets or, with windows, the last one without. Raises UnsupportedError for a layer that does not exist or cannot be
    read."""
    kinds, named = (getattr(config.vision_config, name, None) for name in ("layer_types", "fullatt_block_indexes"))
    windowed = kinds is not None or named is not None
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
