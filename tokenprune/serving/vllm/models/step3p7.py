"""Step 3.7 and Step3-VL: crops of an image with markers between them, and then the whole image, with larger tiles."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models import step3_vl, step3p7, step_vl
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.step3p7 import SIDE, image_layout
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import images_of_crops


class StepProcessor(PruningProcessor, step3_vl.Step3VLMultiModalProcessor):
    has_markers = True


class PrunedStep(PrunedModel):
    """Shared by both models, whose tower gets all whole images, and then their crops."""

    def attention_module(self) -> Any:
        blocks = self.vision_model.transformer.resblocks
        return blocks[self.attention_layer].attn.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return dict.fromkeys(("patch_pixel_values", "patch_newline_mask"), arguments["num_patches"].tolist())

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        needs = self.settings.strategy.needs
        wholes, crops = arguments["pixel_values"], arguments["patch_pixel_values"]
        part, side = (pixels.shape[-1] // self.config.vision_config.patch_size // SIDE for pixels in (crops, wholes))
        layouts = [image_layout(n_crops, part, side) for n_crops in arguments["num_patches"].tolist()]
        tiles: dict[str, list[Any]] = {name: [*wholes, *crops] for name in needs & {"pixels", "colors"}}
        if self.capture is not None:
            tiles["vision_attention"] = self.capture.by_tile()
        return images_of_crops(self, layouts, tiles)


registered = MULTIMODAL_REGISTRY.register_processor(
    StepProcessor, info=step3_vl.Step3VLProcessingInfo, dummy_inputs=step3_vl.Step3VLDummyInputsBuilder
)


@registered
class PrunedStep3p7(PrunedStep, step3p7.Step3p7ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Step 3.7, pruned."""


@registered
class PrunedStepVL(PrunedStep, step_vl.StepVLForConditionalGeneration, SupportsMRoPE):
    """vLLM's Step3-VL, pruned."""
