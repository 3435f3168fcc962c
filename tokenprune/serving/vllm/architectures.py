"""Which of our architectures serves which model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenprune.errors import UnsupportedError

#: Towers for which vLLM has a model of its own where the family may have others too.
NATIVE_TOWERS = ("clip_vision_model", "siglip_vision_model")


@dataclass(frozen=True)
class Architecture:
    """An architecture that the plug-in registers.

    name: the name in `--hf-overrides '{"architectures": [...]}'`.
    home: the module in this package and the class, `llava:PrunedLlava`.
    replaces: the transformers class whose checkpoints it serves.
    model_type: that of the checkpoints' config.
    multidimensional: whether position IDs have three components (M-RoPE).
    """

    name: str
    home: str
    replaces: str
    model_type: str
    multidimensional: bool = False


ARCHITECTURES = {
    one.name: one
    for one in (Architecture("TokenPruneLlava", "llava:PrunedLlava", "LlavaForConditionalGeneration", "llava"),)
}
#: Serves what the others do not, on vLLM's Transformers backend.
GENERIC = "TokenPruneTransformers"


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return the name of the architecture that serves a checkpoint, given its config.json. Raises UnsupportedError for
    a model that none serves."""
    model_type = config.get("model_type")
    tower = config.get("vision_config", {}).get("model_type", NATIVE_TOWERS[0])
    for architecture in ARCHITECTURES.values():
        if architecture.model_type == model_type:
            if model_type == "llava" and tower not in NATIVE_TOWERS:
                return GENERIC
            return architecture.name
    served = sorted({architecture.model_type for architecture in ARCHITECTURES.values()})
    raise UnsupportedError(
        f"no pruned model for vLLM with model_type {model_type!r}. Served: {', '.join(served)}. Patch it in "
        f"transformers instead: tokenprune.patch(model, strategy)."
    )
