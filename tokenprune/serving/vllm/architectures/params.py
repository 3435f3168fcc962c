"""The params.json of a checkpoint in Mistral's own format. Does not load vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARAMS = "params.json"


def config_of_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides whether and how a checkpoint can be pruned inside vLLM, under the names that vLLM gives it,
    from a params.json."""
    multimodal = params.get("multimodal") or {}
    if not (params.get("vision_encoder") or multimodal.get("vision_encoder_args")):
        return {"model_type": "voxtral" if multimodal else params.get("model_type", "transformer")}
    window, n_layers = params.get("sliding_window"), params.get("n_layers")
    text: dict[str, Any] = {"num_hidden_layers": n_layers, "sliding_window": window}
    if isinstance(window, list):  # of some layers, which repeat
        kinds = ["full_attention" if size is None else "sliding_attention" for size in window]
        text |= {"sliding_window": max(filter(None, window), default=None)}
        text |= {"layer_types": [kinds[layer % len(kinds)] for layer in range(n_layers or 0)]}
    return {
        "model_type": "pixtral",
        "architectures": ["PixtralForConditionalGeneration"],
        "text_config": text,
        "vision_config": dict(multimodal or params["vision_encoder"]),
    }
