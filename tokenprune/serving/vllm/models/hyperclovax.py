"""HyperCLOVA X: the vision tower of Qwen2.5-VL and a projector, before position IDs that count tokens."""

# pyright: reportMissingImports=false

from __future__ import annotations

from vllm.model_executor.models import hyperclovax_vision_v2
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedQwenVL


class HyperClovaXProcessor(GridProcessor, hyperclovax_vision_v2.HCXVisionV2MultiModalProcessor): ...


@MULTIMODAL_REGISTRY.register_processor(
    HyperClovaXProcessor,
    info=hyperclovax_vision_v2.HCXVisionV2ProcessingInfo,
    dummy_inputs=hyperclovax_vision_v2.HCXVisionV2DummyInputsBuilder,
)
class PrunedHyperClovaX(PrunedQwenVL, hyperclovax_vision_v2.HCXVisionV2ForCausalLM, SupportsMRoPE):
    """vLLM's HyperCLOVA X, pruned."""

    n_components = 1
