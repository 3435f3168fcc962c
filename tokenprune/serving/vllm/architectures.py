"""Which of our architectures serves which model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenprune.errors import UnsupportedError

#: Towers for which vLLM has a model of its own where the family may have others too.
NATIVE_TOWERS = ("clip_vision_model", "siglip_vision_model")
#: Types of checkpoints in another format than the one that is served, and how to get that.
OTHER_FORMATS = {
    "internvl_chat": "is not in transformers' format. Write the name of its conversion, such as "
    "OpenGVLab/InternVL3_5-8B-HF.",
    "lighton_ocr": "is read by transformers only: vLLM takes LightOn OCR as it is published, with the type 'mistral3'. "
    "Write its published name, such as lightonai/LightOnOCR-2-1B.",
    "pixtral": "is not in transformers' format. If it is a Mistral 3, add --config-format hf --load-format hf "
    "--tokenizer-mode hf.",
}
PATCH = "Patch it in transformers instead: tokenprune.patch(model, strategy)."


@dataclass(frozen=True)
class Architecture:
    """An architecture that the plug-in registers.

    name: the name in `--hf-overrides '{"architectures": [...]}'`.
    home: the module in `models` and the class, `llava:PrunedLlava`.
    replaces: what its checkpoints' config names, which vLLM serves unpruned.
    model_type: that of the checkpoints' config.
    saved_as: the name that transformers writes into the config, if that is another.
    multidimensional: whether position IDs have three components (M-RoPE).
    named: whether it only serves checkpoints that name what it replaces, because another family has the same type.
    chunks: whether vLLM takes images and chunks of videos as one modality.
    """

    name: str
    home: str
    replaces: str
    model_type: str
    multidimensional: bool = False
    named: bool = False
    chunks: bool = False
    saved_as: str | None = None

    def items(self, images: Sequence[Any]) -> dict[str, list[Any]]:
        """The images of a prompt, as vLLM's `LLM.generate` takes them."""
        if self.chunks:
            return {"vision_chunk": [{"type": "image", "image": image, "uuid": None} for image in images]}
        return {"image": list(images)}


#: Serves what the others do not, on vLLM's Transformers backend.
GENERIC = "TokenPruneTransformers"
ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture("TokenPruneLlava", "llava:PrunedLlava", "LlavaForConditionalGeneration", "llava"),
        Architecture(
            "TokenPruneLlavaNext", "llava_next:PrunedLlavaNext", "LlavaNextForConditionalGeneration", "llava_next"
        ),
        Architecture(
            "TokenPruneLlavaOnevision",
            "llava_next:PrunedLlavaOnevision",
            "LlavaOnevisionForConditionalGeneration",
            "llava_onevision",
        ),
        Architecture("TokenPruneInternVL", "internvl:PrunedInternVL", "InternVLForConditionalGeneration", "internvl"),
        Architecture("TokenPruneQwen2VL", "qwen_vl:PrunedQwen2VL", "Qwen2VLForConditionalGeneration", "qwen2_vl", True),
        Architecture(
            "TokenPruneQwen2_5_VL", "qwen_vl:PrunedQwen2_5_VL", "Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", True
        ),
        Architecture("TokenPruneQwen3VL", "qwen_vl:PrunedQwen3VL", "Qwen3VLForConditionalGeneration", "qwen3_vl", True),
        Architecture(
            "TokenPruneQwen3VLMoe",
            "qwen_vl:PrunedQwen3VLMoe",
            "Qwen3VLMoeForConditionalGeneration",
            "qwen3_vl_moe",
            True,
        ),
        Architecture("TokenPruneQwen3_5", "qwen3_5:PrunedQwen3_5", "Qwen3_5ForConditionalGeneration", "qwen3_5", True),
        Architecture(
            "TokenPruneQwen3_5Moe",
            "qwen3_5:PrunedQwen3_5Moe",
            "Qwen3_5MoeForConditionalGeneration",
            "qwen3_5_moe",
            True,
        ),
        Architecture("TokenPruneGlm4v", "glm4v:PrunedGlm4v", "Glm4vForConditionalGeneration", "glm4v", True),
        Architecture(
            "TokenPruneGlm4vMoe", "glm4v:PrunedGlm4vMoe", "Glm4vMoeForConditionalGeneration", "glm4v_moe", True
        ),
        Architecture("TokenPruneGlmOcr", "glm4v:PrunedGlmOcr", "GlmOcrForConditionalGeneration", "glm_ocr", True),
        Architecture(
            "TokenPrunePaddleOCRVL",
            "paddleocr_vl:PrunedPaddleOCRVL",
            "PaddleOCRVLForConditionalGeneration",
            "paddleocr_vl",
            True,
        ),
        Architecture(
            "TokenPruneExaone4_5", "exaone4_5:PrunedExaone4_5", "Exaone4_5_ForConditionalGeneration", "exaone4_5"
        ),
        Architecture(
            "TokenPruneLightOnOCR",
            "mistral3:PrunedLightOnOcr",
            "LightOnOCRForConditionalGeneration",
            "mistral3",
            named=True,
        ),
        Architecture("TokenPruneMistral3", "mistral3:PrunedMistral3", "Mistral3ForConditionalGeneration", "mistral3"),
        Architecture(
            "TokenPruneKimiK25",
            "kimi:PrunedKimiK25",
            "KimiK25ForConditionalGeneration",
            "kimi_k25",
            chunks=True,
            saved_as="Kimi_K25ForConditionalGeneration",
        ),
        Architecture("TokenPruneIdefics3", "idefics3:PrunedIdefics3", "Idefics3ForConditionalGeneration", "idefics3"),
        Architecture("TokenPruneSmolVLM", "idefics3:PrunedSmolVLM", "SmolVLMForConditionalGeneration", "smolvlm"),
        Architecture("TokenPruneLlama4", "llama4:PrunedLlama4", "Llama4ForConditionalGeneration", "llama4"),
        Architecture(
            "TokenPruneMiniCPMV4_6",
            "minicpm:PrunedMiniCPMV4_6",
            "MiniCPMV4_6ForConditionalGeneration",
            "minicpmv4_6",
        ),
        Architecture("TokenPruneGemma3", "gemma3:PrunedGemma3", "Gemma3ForConditionalGeneration", "gemma3"),
        Architecture("TokenPruneGemma4", "gemma4:PrunedGemma4", "Gemma4ForConditionalGeneration", "gemma4"),
        Architecture(
            "TokenPruneCohere2Vision",
            "cohere2_vision:PrunedCohere2Vision",
            "Cohere2VisionForConditionalGeneration",
            "cohere2_vision",
        ),
        Architecture(GENERIC, "generic:PrunedTransformers", "TransformersMultiModalForCausalLM", "llava"),
    )
}


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return the name of the architecture that serves a checkpoint, given its config.json. Raises UnsupportedError for
    a model that none serves, also one that only shares its type with one that is served."""
    model_type, names = config.get("model_type"), config.get("architectures") or ()
    _check_names(model_type, [name for name in names if name not in ARCHITECTURES])
    tower = (config.get("vision_config") or {}).get("model_type", NATIVE_TOWERS[0])
    for architecture in ARCHITECTURES.values():
        if architecture.named and not {architecture.replaces, architecture.name} & set(names):
            continue
        if architecture.model_type == model_type:
            if model_type == "llava" and tower not in NATIVE_TOWERS:
                return GENERIC
            return architecture.name
    if model_type in OTHER_FORMATS:
        raise UnsupportedError(f"a model of type {model_type!r} {OTHER_FORMATS[model_type]}")
    served = sorted({architecture.model_type for architecture in ARCHITECTURES.values()})
    raise UnsupportedError(
        f"a model of type {model_type!r} cannot be pruned inside vLLM. Supported: {', '.join(served)}. {PATCH}"
    )


def _check_names(model_type: object, names: Sequence[str]) -> None:
    """Raise UnsupportedError if a config names an architecture that is not served, of a type that is."""
    of_type = [one for one in ARCHITECTURES.values() if one.model_type == model_type and one.name != GENERIC]
    served = {one.replaces for one in of_type} | {one.saved_as for one in of_type if one.saved_as}
    others = [name for name in names if name not in served]
    if of_type and others:
        raise UnsupportedError(
            f'config.json names {", ".join(others)} in "architectures", which cannot be pruned inside vLLM: of type '
            f"{model_type!r}, only {' and '.join(sorted(served))} can. If the weights are in that format, write that "
            f"name there. {PATCH}"
        )
