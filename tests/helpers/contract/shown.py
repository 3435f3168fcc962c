"""The inputs of strategies."""

from dataclasses import dataclass, field
from typing import Any

import torch

import tokenprune
from tokenprune.selection import Selection
from tokenprune.strategy import AttentionStrategy
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class _Look(AttentionStrategy):
    """Keeps the first tokens, and records its inputs."""

    seen: list[VisualTokens] = field(default_factory=list)

    def select(self, tokens: VisualTokens) -> Selection:
        self.seen.append(tokens)
        return Selection(torch.arange(self.budget(tokens.n_visual)), tokens.n_visual)


def shown(model: Any, inputs: dict[str, Any], layer: int | None = None) -> list[VisualTokens]:
    """Return the images of a call as given to a strategy that reads the attention of a vision tower layer."""
    look = _Look(keep_ratio=0.5, layer=layer)
    with torch.no_grad(), tokenprune.patch(model, look):
        model(**inputs)
    return look.seen
