"""PI0.5: PI0 without a state, whose expert's norms and gates depend on the step."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PI05Config
from transformers.models.pi05.modeling_pi05 import PI05AdaptiveRMSNorm

from helpers.families.base import ImageInputs

from .pi0 import ACTIONS, PI0, STEPS, WIDTH


class PI05(PI0):
    """Four steps towards five actions. The gates are far from 0, at which the expert's layers would do nothing."""

    class_name = "PI05ForConditionalGeneration"

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        model = super().build(attention, seed, n_layers)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, PI05AdaptiveRMSNorm):
                    module.dense.weight.normal_(std=1.0)
                    module.dense.bias[-len(module.dense.bias) // 3 :] = 1.0
        return model

    def config(self) -> Any:
        return PI05Config(
            **self.stacks(),
            chunk_size=ACTIONS,
            max_action_dim=WIDTH,
            num_inference_steps=STEPS,
        )

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        """Join images as for PI0, whose state is told in the prompt."""
        joined = super().join(images, per_row)
        del joined["state"]
        return joined
