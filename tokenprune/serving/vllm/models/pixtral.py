"""Mistral's own format, in which Pixtral, Mistral 3 and Mistral Large 3 are published: images of any size, and a marker
after each row of visual tokens. mistral-common writes them all into the prompt before vLLM sees the image."""

# pyright: reportMissingImports=false

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from vllm.model_executor.models import pixtral
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import BaseMultiModalProcessor
from vllm.multimodal.processing.processor import ResolvedPromptUpdate

from tokenprune.serving.vllm.models.mistral3 import PrunedPixtralTower
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.settings import Budget


class PixtralProcessor(PruningProcessor, pixtral.PixtralMultiModalProcessor):
    has_markers = True

    def _shortened(
        self, update: ResolvedPromptUpdate, asked: Budget | None, item: Any, modality: str
    ) -> ResolvedPromptUpdate:
        """The same, to replace all of the image's tokens, which are in the prompt."""
        return replace(super()._shortened(update, asked, item, modality), target=[*update.content.full])

    def _maybe_apply_prompt_updates(self, mm_items: Any, mm_res: Any) -> Any:
        """Replace them, as for other models: vLLM only looks for them."""
        return BaseMultiModalProcessor._maybe_apply_prompt_updates(self, mm_items, mm_res)


@MULTIMODAL_REGISTRY.register_processor(
    PixtralProcessor, info=pixtral.PixtralProcessingInfo, dummy_inputs=pixtral.PixtralDummyInputsBuilder
)
class PrunedPixtral(PrunedPixtralTower, pixtral.PixtralForConditionalGeneration, SupportsMRoPE):
    """vLLM's model for Mistral's own format, pruned. Its images arrive normalised."""

    pixels_name: ClassVar[str] = "images"

    @property
    def tower(self) -> Any:
        return self.vision_encoder

    @property
    def side(self) -> int:
        return self.vision_args.spatial_merge_size
