"""PI0.5: PI0 without a state, whose expert's norms and gates depend on the step."""

from typing import Any

import torch
import transformers

from helpers.families.base import ImageInputs

from .pi0 import ACTIONS, PI0, STEPS, WIDTH


class PI05(PI0):
    """Four steps towards five actions. The gates are far from 0, at which the expert's layers would do nothing."""

    class_name = "PI05ForConditionalGeneration"
    config_name = "PI05Config"

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        model = super().build(attention, seed, n_layers)
        with torch.no_grad():
            for name, parameter in model.model.dit.named_parameters():
                if name.endswith("norm.dense.weight"):
                    parameter.normal_()
                elif name.endswith("norm.dense.bias"):
                    parameter.chunk(3)[-1].fill_(1.0)  # of scale, shift and gate
        return model

    def config(self) -> Any:
        config = getattr(transformers, self.config_name)  # since 5.25
        return config(**self.stacks(), chunk_size=ACTIONS, max_action_dim=WIDTH, num_inference_steps=STEPS)

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        """Join images as for PI0, whose state is told in the prompt."""
        joined = super().join(images, per_row)
        del joined["state"]
        return joined
