"""GLM-5-Next: images and videos of any size, before linear attention and attention to chosen tokens.

No layer reads position IDs. The token selection uses them as places in the KV cache, so they count the kept tokens.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from vllm.model_executor.models.glm4_1v import Glm4vDummyInputsBuilder
from vllm.models.glm5next import Glm5NextForConditionalGeneration
from vllm.models.glm5next.common.multimodal import Glm5NextMultiModalProcessor, Glm5NextProcessingInfo
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedQwenVL


class Glm5NextProcessor(GridProcessor, Glm5NextMultiModalProcessor): ...


@MULTIMODAL_REGISTRY.register_processor(
    Glm5NextProcessor, info=Glm5NextProcessingInfo, dummy_inputs=Glm4vDummyInputsBuilder
)
class PrunedGlm5Next(PrunedQwenVL, Glm5NextForConditionalGeneration):
    """vLLM's GLM-5-Next, pruned."""

    n_components = 1
