"""Vision towers that accept fewer patches from some encoder layer on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.towers.tower import Tower
from tokenprune.tokens.attention import split_heads

#: Attention kernels that take a mask of (tiles, 1, tokens, tokens).
KERNELS = ("eager", "sdpa")

#: Queries, keys and values, each (tiles, heads, tokens, width).
Projected = tuple[Tensor, Tensor, Tensor]
N_CAPTURED = 3


@dataclass(frozen=True)
class TowerLayers:
    """The encoder layers of a tower that take hidden states of (tiles, tokens, width) and an optional mask, and
    distinguish tokens by nothing else.

    n_before: number of layers before the one whose output the projector gets; patches may be dropped after each of
        them.
    """

    tower: Tower
    layers: nn.ModuleList
    n_before: int
    n_heads: int

    @classmethod
    def of(cls, tower: Tower, vision: Any, n_before: int) -> TowerLayers | None:
        """Those of a model's vision tower; None if no layer comes before, or if they take no masks."""
        layers = tower.layers(vision)
        if tower.values is None or n_before < 1 or vision.config._attn_implementation not in KERNELS:
            return None
        if "attention_mask" not in signature(type(layers[0]).forward).parameters:  # DINOv2's, up to 5.1x
            return None
        return cls(tower, layers, n_before, vision.config.num_attention_heads)

    def capture_points(self, number: int) -> Mapping[str, nn.Module]:
        """The modules that return the queries, keys and values of a layer, by name."""
        assert self.tower.values is not None
        layer = self.layers[number]
        return {**self.tower.capture_points(layer).outputs, "values": self.tower.values(layer)}

    def split_heads(self, captured: Mapping[str, Float[Tensor, "tiles tokens width"]]) -> Projected:
        """Split what the capture points of one layer returned into heads."""
        queries, keys, values = (split_heads(captured[name], self.n_heads) for name in ("queries", "keys", "values"))
        return queries, keys, values

    def arguments(
        self, named: Mapping[str, Any], hidden: Tensor, mask: Tensor | None
    ) -> tuple[tuple[Tensor], dict[str, Any]]:
        """The arguments of a layer's call with other hidden states and another mask. The states stay positional, where
        transformers expects them."""
        assert named.get("attention_mask") is None, "these towers have no masks of their own"
        others = {name: value for name, value in named.items() if name != "hidden_states"}
        return (hidden,), {**others, "attention_mask": mask}


def restore_patches(output: Any, n_layers: int, restore: Callable[[int, Tensor], Tensor]) -> Any:
    """Apply `restore`, which gives dropped patches a place again, to every hidden state of a tower's output; it gets
    the number of the layer that made the state."""
    if output.hidden_states is not None:
        first, *states = output.hidden_states
        rest = (None if state is None else restore(i, state) for i, state in enumerate(states))
        output.hidden_states = (first, *rest)
    output.last_hidden_state = restore(n_layers - 1, output.last_hidden_state)
    return output
