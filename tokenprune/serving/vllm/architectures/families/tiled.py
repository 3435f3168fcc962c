"""Models that cut an image into tiles or crops, with text between their visual tokens."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

from tokenprune.serving.vllm.architectures.architecture import Architecture


def molmo2_described(config: Any) -> Any:
    """Molmo 2's config in transformers' format, whose tower ends with the last pooled layer: published checkpoints have
    no later ones, and vLLM builds none."""
    named, vision = copy(config), copy(config.vit_config)
    vision.num_hidden_layers = 1 + max(layer % vision.num_hidden_layers for layer in config.adapter_config.vit_layers)
    named.vision_config = vision
    return named


def molmo2_misfit(config: Any) -> str | None:
    if hasattr(config, "vit_config"):
        return None
    return (
        "vLLM takes Molmo 2 in its authors' format, with a vit_config in config.json, and reads it with their "
        "code. Add --trust-remote-code, and name a checkpoint that is published so, such as allenai/Molmo2-8B."
    )


marked = partial(Architecture, has_markers=True)
step = partial(marked, home="step3p7", tower="families.step3p7:TOWER", needs_pixels=True, takes_adapters=False)
RECORDS = (
    marked(
        "TokenPruneCohere2Vision", "cohere2_vision", "cohere2_vision", title="Cohere 2 Vision",
        tower="families.cohere_vision:TOWER", needs_pixels=True, tables=("MODEL_TO_TAG_STYLE",),
        takes_adapters=False,
    ),
    marked(
        "TokenPruneIdefics3", "idefics3", "idefics3", title="Idefics 3 (also SmolVLM and Granite Docling), SmolVLM2",
        published=("HuggingFaceTB/SmolVLM-256M-Instruct", "ibm-granite/granite-docling-258M"),
        names=(r"\S+/(SmolVLM|SmolDocling|granite-docling)-",),
    ),
    marked("TokenPruneSmolVLM", "smolvlm", "idefics3", published=("HuggingFaceTB/SmolVLM2-500M-Video-Instruct",)),
    marked("TokenPruneLlama4", "llama4", "llama4", title="Llama 4", tower="families.llama4:TOWER"),
    # vLLM takes its authors' format, which transformers' class renames.
    marked(
        "TokenPruneMolmo2", "molmo2", "molmo2", title="Molmo 2",
        text_part="text_config", vision_parts=("vit_config", "adapter_config"), tower="families.molmo2:TOWER",
        described=molmo2_described, misfit=molmo2_misfit, needs_pixels=True,
    ),
    step(
        "TokenPruneStep3p7", "step3p7",
        title="Step 3.7", published=("stepfun-ai/Step-3.7-Flash",), names=(r"\S+/Step-3\.7",),
    ),
    step(
        "TokenPruneStepVL", "step_robotics",
        title="Step3-VL-10B", published=("stepfun-ai/Step3-VL-10B", "stepfun-ai/Step3-VL-10B-Base"),
        names=(r"\S+/Step3-VL-10B",),
        like="step3p7", text_part="text_config",
    ),
)  # fmt: skip
