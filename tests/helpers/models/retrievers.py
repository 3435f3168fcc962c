"""Common code for tests of retrieval models."""

from typing import Any

import torch
from torch import Tensor

from helpers.families.base import PAD


def built(model_class: Any, config: Any) -> Any:
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    return model


def queries() -> dict[str, Tensor]:
    ids = torch.tensor([[1, 2, 3, 4, 5], [1, 6, 7, PAD, PAD]])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def embedded(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).embeddings
