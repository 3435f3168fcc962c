"""Which layers of a model are trained, and with what: LoRA (https://arxiv.org/abs/2106.09685) by PEFT."""

from __future__ import annotations

import re
import warnings
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from tokenprune.adapters import adapter_for
from tokenprune.errors import UnsupportedError
from tokenprune.evals.adapt.settings import Part


def with_lora(model: Any, part: Part, rank: int) -> PeftModel:
    """Wrap a loaded model so that only low-rank updates of some linear layers are trained.

    UnsupportedError if the model has no such layers.
    """
    names = target_names(model, part)
    pattern = "|".join(sorted({re.sub(r"\\\.\d+(?=\\\.|$)", r"\\.\\d+", re.escape(name)) for name in names}))
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=pattern)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # PEFT reads the old name
        return get_peft_model(model, config)


def target_names(model: Any, part: Part) -> list[str]:
    """The names of the linear layers of a part. UnsupportedError if it has none."""
    adapter = adapter_for(model)
    decoder = set(adapter.layers.modules())
    elsewhere = {module for tower in adapter.vision_towers for module in tower.modules()}
    elsewhere |= set(adapter.language_model.modules())
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    head = model.get_output_embeddings()
    names = [
        name
        for name, module in linear.items()
        if (module in decoder and part != "projector")
        or (module not in elsewhere and module is not head and part != "decoder")
    ]
    if not names:
        raise UnsupportedError(f"{type(model).__name__} has no linear layers in its {part}, so nothing can be trained.")
    return names


def n_trained(model: nn.Module) -> int:
    """How many weights are trained."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
