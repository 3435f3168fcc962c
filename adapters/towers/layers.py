"""Vision towers that may be given fewer patches from some encoder layer on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.towers.registry import Tower

#: Attention kernels that take a mask of (tiles, 1, tokens, tokens).
KERNELS = ("eager", "sdpa")

#: Queries, keys and values, each (tiles, heads, tokens, width).
Projected = tuple[Tensor, Tensor, Tensor]
N_TAPS = 3


@dataclass(frozen=True)
class TowerLayers:
    """The encoder layers of a tower that are called with hidden states of (tiles, tokens, width) and a mask, or none,
    and that tell tokens apart by nothing else.

    n_before: how many come before the layer whose output the projector gets: behind each of them patches may be
        dropped.
    """

    tower: Tower
    layers: nn.ModuleList
    n_before: int
    n_heads: int

    @classmethod
    def of(cls, tower: Tower, vision: Any, n_before: int) -> TowerLayers | None:
        """Those of a model's vision tower; None if it has none, or they take no masks."""
        layers = tower.layers(vision)
        if tower.values is None or n_before < 1 or vision.config._attn_implementation not in KERNELS:
            return None
        if "attention_mask" not in signature(type(layers[0]).forward).parameters:  # DINOv2's, up to 5.1x
            return None
        return cls(tower, layers, n_before, vision.config.num_attention_heads)

    def taps(self, number: int) -> Mapping[str, nn.Module]:
        """The modules that show the queries, keys and values of a layer."""
        assert self.tower.values is not None
        layer = self.layers[number]
        return {**self.tower.taps(layer).outputs, "values": self.tower.values(layer)}

    def projected(self, heard: Mapping[str, Float[Tensor, "tiles tokens width"]]) -> Projected:
        """What the taps of one layer showed, by heads."""
        queries, keys, values = (
            heard[name].unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for name in ("queries", "keys", "values")
        )
        return queries, keys, values

    def recomputed(self, layer: Any) -> bool:
        """Whether the backward pass runs a layer again with its hooks, as activation checkpointing did until it wrapped
        their `forward` instead of their call."""
        checkpoints = layer.training and getattr(layer, "gradient_checkpointing", False)
        return checkpoints and type(layer).__call__ is not nn.Module.__call__

    def arguments(
        self, named: Mapping[str, Any], hidden: Tensor, mask: Tensor | None
    ) -> tuple[tuple[Tensor], dict[str, Any]]:
        """Those of a layer's call, by name, with other hidden states and another mask. The states stay positional,
        where transformers looks for them."""
        assert named.get("attention_mask") is None, "these towers have no masks of their own"
        others = {name: value for name, value in named.items() if name != "hidden_states"}
        return (hidden,), {**others, "attention_mask": mask}


def widened(output: Any, n_layers: int, whole: Callable[[int, Tensor], Tensor]) -> Any:
    """A tower's output in which `whole` made every hidden state one of all patches, given the layer it came from."""
    if output.hidden_states is not None:
        first, *states = output.hidden_states
        rest = (None if state is None else whole(i, state) for i, state in enumerate(states))
        output.hidden_states = (first, *rest)
    output.last_hidden_state = whole(n_layers - 1, output.last_hidden_state)
    return output
