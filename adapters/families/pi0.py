"""PI0 and PI0.5, robot policies: PaliGemma reads cameras and instruction, and a Gemma expert denoises actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from tokenprune.adapters.decoder.config import Decoder
from tokenprune.adapters.decoder.denoising import PREFIX_ATTRIBUTE, Policy, PolicyPrefix
from tokenprune.adapters.families.paligemma import PaliGemmaAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.errors import PruningError


@register_adapter("PI0ForConditionalGeneration", other_names=(r"\S+/\S*pi0(52|\S?fast)",))  # LeRobot's own
@register_adapter("PI05ForConditionalGeneration")
class PI0Adapter(Policy, PaliGemmaAdapter):
    """For PI0ForConditionalGeneration and PI05ForConditionalGeneration, whose prompt also tells the robot's state. An
    image is a camera. All tokens of the prefix attend to each other."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.config = self._whole.config.vlm_config
        self.tower = self.known_tower()
        self.decoder = Decoder.of(self.config.get_text_config(), self.noncausal, self.language_model, self.layers)
        expert: Any = self.expert
        Decoder.of(expert.config, self.noncausal, expert, expert.layers)  # takes the same masks

    @property
    def core(self) -> Any:
        return self._whole.model.vlm

    @property
    def expert(self) -> nn.Module:
        return self._whole.model.dit

    @property
    def embedding_function(self) -> tuple[nn.Module, str]:
        return self._whole.model, "embed_prefix"

    def embedded(self, call: Mapping[str, Any]) -> tuple[Bool[Tensor, "batch length"], Bool[Tensor, " images"]]:
        return call["input_ids"] == self.config.image_token_id, call["pixel_attention_mask"].bool().flatten()

    def expert_outputs(self, layer: int) -> Sequence[nn.Module]:
        block: Any = self._whole.model.dit.layers[layer]
        return block.self_attn, block.mlp

    def visual_mask(self, modality: Modality, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        """Raises PruningError for embeddings that the patched policy did not make."""
        prefix = self.encoded(modality, kwargs)
        if prefix is None and kwargs.get("inputs_embeds") is not None:
            raise PruningError(
                "these embeddings do not come from embed_prefix of the patched policy, so nothing is known about their "
                "visual tokens. Call sample_actions, or call embed_prefix after patch()."
            )
        return None if prefix is None else prefix.visual.get(modality.name)

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> PolicyPrefix | None:
        return getattr(kwargs.get("inputs_embeds"), PREFIX_ATTRIBUTE, None)

    @property
    def _whole(self) -> Any:
        return self.model
