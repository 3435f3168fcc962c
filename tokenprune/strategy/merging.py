"""Strategies that merge dropped tokens into kept ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tokenprune.errors import SettingError
from tokenprune.strategy.base import Strategy


@dataclass(frozen=True)
class MergingStrategy(Strategy):
    """Merges dropped tokens into kept ones.

    attention_bias: "size" is ToMe's proportional attention (https://arxiv.org/abs/2210.09461): in every decoder layer,
        log(size) is added to the attention logits of a kept token's key, where size is the number of tokens it stands
        for (`Selection.sizes`). It is then attended to as strongly as that many identical tokens at its position. Does
        not work with FlashAttention, which takes no such masks, or with layers that have a state. None adds nothing, as
        in the papers.
    """

    # Keyword-only, so that a subclass's own settings keep their positions.
    attention_bias: Literal["size"] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention_bias not in (None, "size"):
            raise SettingError(
                f"{type(self).__name__}: attention_bias={self.attention_bias!r} is not known; write "
                f'attention_bias="size", or None.'
            )

    @property
    def biases_attention(self) -> bool:
        """Whether the language model attends to kept tokens in proportion to how many they stand for."""
        return self.attention_bias == "size"
