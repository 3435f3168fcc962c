"""What the tests of training share: rows of questions, and a model with an adapter."""

from collections.abc import Iterable
from typing import Any

import torch

from helpers.files.evals import tiny_processor
from helpers.models.staged import FAMILY
from tokenprune.evals.adapt.examples import Example
from tokenprune.evals.adapt.lora import with_lora
from tokenprune.evals.adapt.rows import Collator, Row

COLLATOR = Collator(tiny_processor(), torch.float32)


def alone(examples: Iterable[Example]) -> list[Row]:
    """Return one row per question."""
    return [Row((example,)) for example in examples]


def fresh_llava() -> Any:
    """Return a model that is not shared with other tests, because PEFT changes it."""
    return FAMILY.build()


def adapted_llava(model: Any = None, std: float = 0.1) -> Any:
    """Return a model with an adapter that changes its output."""
    adapted = with_lora(fresh_llava() if model is None else model, "decoder", 4)
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    return adapted
