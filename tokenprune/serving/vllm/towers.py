"""CLIP and SigLIP towers as vLLM builds them: only up to the layer whose output the projector gets."""

from __future__ import annotations

from typing import Any

from tokenprune.adapters.towers import Tower, tower_of
from tokenprune.errors import UnsupportedError


def tower_of_config(config: Any) -> Tower:
    """How the vision tower of a model's config is read."""
    return tower_of(config.vision_config.model_type, config.architectures[0])


def states_of(config: Any) -> list[int]:
    """The hidden states of the tower that the projector gets, as numbers of layers that were run."""
    states = config.vision_feature_layer
    n_layers = config.vision_config.num_hidden_layers
    return [
        state if state >= 0 else n_layers + 1 + state for state in ([states] if isinstance(states, int) else states)
    ]


def encoder_layer(config: Any, layer: int | None) -> int:
    """The index of the encoder layer that a strategy's `layer` means; None means the layer whose output the projector
    gets. Raises UnsupportedError for a layer that does not exist, or that vLLM does not build."""
    n_layers, n_built = config.vision_config.num_hidden_layers, max(states_of(config))
    if layer is None:
        layer = n_built - 1
    if not -n_layers <= layer < n_layers or n_built == 0:
        raise UnsupportedError(f"layer={layer} is not in the vision tower, whose layers are 0..{n_layers - 1}.")
    if layer % n_layers >= n_built:
        raise UnsupportedError(
            f"layer={layer} is layer {layer % n_layers} of the vision tower, and vLLM builds only layers "
            f"0..{n_built - 1}, because the projector gets the output of the last of these. Write a setting of the "
            f'strategy such as "layer": {n_built - 1 - n_layers}.'
        )
    return layer % n_layers
