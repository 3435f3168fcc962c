"""The models that are pruned inside vLLM.

architecture       what the plug-in must know of a model
tiled              models that resize an image to one size, or cut it into tiles
native_resolution  models that encode an image of almost any size as one sequence of patches
checkpoints        which architecture serves which checkpoint
params             the config in params.json, which checkpoints in Mistral's own format have
releases           which vLLM releases have an architecture
"""

from __future__ import annotations

from tokenprune.serving.vllm.architectures.architecture import Architecture, by_name
from tokenprune.serving.vllm.architectures.native_resolution import NATIVE_RESOLUTION
from tokenprune.serving.vllm.architectures.tiled import TILED

#: Serves all other models, on vLLM's Transformers backend.
GENERIC = "TokenPruneTransformers"
ARCHITECTURES = by_name(
    *TILED,
    *NATIVE_RESOLUTION,
    Architecture(GENERIC, "generic:PrunedTransformers", "TransformersMultiModalForCausalLM", "llava"),
)
