"""Fuyu: a visual token is a patch that no tower has encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter


@register_adapter("FuyuForCausalLM")
class FuyuAdapter(GenericAdapter):
    """For FuyuForCausalLM. The processor writes a marker after every row; markers are text and stay."""

    since = (5, 24)

    def features(self, output: Any) -> Sequence[Float[Tensor, "*tokens width"]]:
        return list(output.last_hidden_state)
