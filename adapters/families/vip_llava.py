"""ViP-LLaVA: LLaVA whose projector gets several layers of the vision tower at once."""

from __future__ import annotations

from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.errors import UnsupportedError


@register_adapter("VipLlavaForConditionalGeneration")
class VipLlavaAdapter(LlavaAdapter):
    """For VipLlavaForConditionalGeneration with a CLIP or DINOv2 tower."""

    tokenwise = "VipLlavaMultiModalProjector"

    def check_patches(self) -> None:
        if self.tower.n_prefix != 1:
            raise UnsupportedError(
                f"{type(self.model).__name__} drops the first token of its vision tower, and that of a "
                f"{self.vision_tower.config.model_type} tower is a patch, so its visual tokens do not form a grid. "
                f"Load a model with a CLIP tower."
            )

    @property
    def feature_layers(self) -> int | list[int]:
        if hasattr(self.config, "vision_feature_layer"):
            return self.config.vision_feature_layer
        return self.config.vision_feature_layers  # up to 5.1x
