"""Wrappers around a model that only forward its calls."""

from __future__ import annotations

from typing import Any

from tokenprune.errors import UnsupportedError


def unwrap_model(model: Any) -> Any:
    """Return the Hugging Face model inside the wrappers of torch.compile and PEFT; anything else unchanged.

    Raises UnsupportedError for PEFT's prompt learning, whose virtual tokens precede the prompt.
    """
    while True:
        if hasattr(model, "_orig_mod"):  # torch.compile(model)
            model = model._orig_mod
        elif hasattr(model, "get_base_model"):  # peft.get_peft_model(model, ...)
            if model.active_peft_config.is_prompt_learning:
                raise UnsupportedError(
                    f"{model.active_peft_config.peft_type.value} puts virtual tokens before the prompt, and pruning "
                    f"does not know them. Use LoRA, or another PEFT method that changes weights only."
                )
            model = model.get_base_model()
        else:
            return model
