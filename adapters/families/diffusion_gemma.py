"""DiffusionGemma: Gemma 4's tower and language model, which encodes the prompt, and a denoiser that reads its cache."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.decoder.denoising import BlockDiffusion
from tokenprune.adapters.families.gemma4 import Gemma4Adapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers.attention import apply_rotary
from tokenprune.errors import UnsupportedError


@register_adapter("DiffusionGemmaForBlockDiffusion")
class DiffusionGemmaAdapter(BlockDiffusion, Gemma4Adapter):
    """For DiffusionGemmaForBlockDiffusion. The language model is the encoder's: it fills the cache once a canvas."""

    only_before = "its denoiser reads the cache of every layer, so all layers must hold the same tokens"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if self.config.get_text_config().use_bidirectional_attention == "all":
            raise UnsupportedError(
                f"{type(model).__name__} whose encoder attends in both directions everywhere "
                f'(use_bidirectional_attention="all") is not supported: it makes no masks that could be pruned. Load a '
                f'checkpoint with "vision" or None.'
            )

    @property
    def core(self) -> Any:
        return self._parts.encoder

    @property
    def language_model(self) -> nn.Module:
        return self.core.language_model

    @property
    def denoiser(self) -> nn.Module:
        return self._parts.decoder

    @property
    def offers(self) -> Set[str]:
        return super().offers | {"canvas_attention"}

    def canvas_attention(self, layer: int) -> nn.Module:
        return self._parts.decoder.layers[layer].self_attn

    def canvas_heads(
        self, layer: int, call: Mapping[str, Any]
    ) -> tuple[Float[Tensor, "batch heads canvas width"], Float[Tensor, "batch key_heads canvas width"]]:
        attention: Any = self.canvas_attention(layer)

        def rotated(project: Any, norm: Any) -> Tensor:
            states = norm(project(call["hidden_states"]).unflatten(-1, (-1, attention.head_dim)))
            angles = (part.expand(len(states), -1, -1).flatten(0, 1) for part in call["position_embeddings"])
            return apply_rotary(states.flatten(0, 1), *angles).view_as(states).transpose(1, 2)

        queries = rotated(attention.q_proj, attention.q_norm)
        return queries * attention.scaling, rotated(attention.k_proj, attention.k_norm)

    @property
    def _parts(self) -> Any:
        return self.model.model
