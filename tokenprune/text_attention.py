"""What the text of a prompt attends to, in one decoder layer: from its queries and keys, for the rows that are asked.

The layer itself keeps its fast attention kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.attention import Heads, reduce_heads
from tokenprune.calls import PerThread


@dataclass(frozen=True, eq=False)
class TextAttention:
    """The attention of one decoder layer in one row of the batch, over the tokens of this call that the layer saw.

    real: False for padding and holes, which take no part.
    visual: where the image's visual tokens stand among those tokens, as far as the layer saw them.

    In a conversation that reuses a cache, what earlier turns cached is left out of the softmax.
    """

    queries: Float[Tensor, "heads tokens width"]
    keys: Float[Tensor, "key_heads tokens width"]
    scale: float
    real: Bool[Tensor, " tokens"]
    visual: Int[Tensor, " left"]

    def from_last(self, heads: Heads = "mean") -> Float[Tensor, " left"]:
        """What the last token of the prompt pays to each visual token."""
        return self.from_rows(self.real.nonzero()[-1], heads)[0]

    def from_rows(self, rows: Int[Tensor, " rows"], heads: Heads = "mean") -> Float[Tensor, "rows left"]:
        """What the tokens at `rows` pay to each visual token; heads reduced."""
        keys = repeat(
            self.keys, "head token width -> (head group) token width", group=len(self.queries) // len(self.keys)
        )
        logits = self.queries[:, rows].float() @ keys.float().transpose(1, 2) * self.scale
        places = self.real.long().cumsum(0)
        hidden = ~self.real | (places > places[rows][:, None])
        return reduce_heads(logits.masked_fill(hidden, float("-inf")).softmax(-1), heads)[:, self.visual]


class Heard(PerThread):
    """calls: by layer, what it was called with and what its taps returned, in the forward that is in progress."""

    def __init__(self) -> None:
        self.calls: dict[int, dict[str, Any]] = {}


class TextRecorder:
    """Hears, through callbacks that hooks.py puts on it, the layers whose attention a strategy's stages read."""

    def __init__(self) -> None:
        self._heard = Heard()

    def before_attention(self, layer: int, kwargs: dict[str, Any]) -> None:
        self._heard.calls[layer] = {"attention": kwargs}

    def after_tap(self, layer: int, name: str, output: Tensor) -> None:
        self._heard.calls[layer][name] = output.detach()

    def take(self, layer: int) -> dict[str, Any]:
        """What one layer showed in this forward; it is forgotten."""
        return self._heard.calls.pop(layer)

    def forget(self) -> None:
        self._heard.calls = {}
