"""Vision towers that accept fewer patches after some encoder layer, and the projectors after them. Their layers take
either a batch of tiles or the patches of all images in one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenprune.adapters.conventions import unwrap_part
from tokenprune.adapters.towers.attention import Projected, RowAttention
from tokenprune.adapters.towers.row import Row
from tokenprune.adapters.towers.tower import Tower
from tokenprune.tokens.attention import split_heads

#: Attention kernels that take a mask of (tiles, 1, tokens, tokens).
KERNELS = ("eager", "sdpa")
#: The name under which a base model holds its projector.
PROJECTOR = "multi_modal_projector"


def kernel_of(vision: Any) -> str:
    """The attention kernel that a vision tower runs now."""
    return vision.config._attn_implementation


@dataclass(frozen=True)
class BatchLayers:
    """The encoder layers of a tower that take hidden states of (tiles, tokens, width), and distinguish tokens by
    nothing else. The layers or their attention take an optional mask.

    after: the layers after which visual tokens may be dropped, all before the one whose output the projector gets.
    patches: returns the patches of each visual token of a tile, from the arguments of the tower; None if each has one.
    whole_images: whether a tile is an image. If not, the tower does not know which tiles belong to one image.
    projector: returns the module that gets the patches of each call of the tower, without prefix tokens, and maps every
        patch by itself; None if there is no such module.
    """

    tower: Tower
    layers: nn.ModuleList
    after: tuple[int, ...]
    n_heads: int
    patches: Callable[[Mapping[str, Any]], Int[Tensor, "visual patches"]] | None = None
    whole_images: bool = True
    projector: Callable[[], nn.Module] | None = None

    @classmethod
    def of(
        cls,
        tower: Tower,
        vision: Any,
        n_before: int,
        patches: Callable[[Mapping[str, Any]], Int[Tensor, "visual patches"]] | None = None,
        whole_images: bool = True,
        projector: Callable[[], nn.Module] | None = None,
    ) -> BatchLayers | None:
        """The layers of a model's vision tower, the first `n_before` of which come before the layer whose output the
        projector gets; None if there are none, or if they take no masks."""
        layers = tower.layers(vision)
        if tower.values is None or n_before < 1 or kernel_of(vision) not in KERNELS:
            return None
        n_heads = vision.config.num_attention_heads
        own = cls(tower, layers, tuple(range(n_before)), n_heads, patches, whole_images, projector)
        return own if takes_mask(own.masked(0)) else None

    def masked(self, number: int) -> nn.Module:
        """The module of a layer that takes the mask: the layer itself, or its attention."""
        layer = self.layers[number]
        return layer if takes_mask(layer) else self.tower.capture_points(layer).attention

    def capture_points(self, number: int) -> Mapping[str, nn.Module]:
        """The modules that return the queries, keys and values of a layer, by name."""
        assert self.tower.values is not None
        layer = self.layers[number]
        return {**self.tower.capture_points(layer).outputs, "values": self.tower.values(layer)}

    def split_heads(self, captured: Mapping[str, Float[Tensor, "tiles tokens width"]]) -> Projected:
        """Split what the capture points of one layer returned into heads: (tiles, heads, tokens, width)."""
        queries, keys, values = (split_heads(captured[name], self.n_heads) for name in ("queries", "keys", "values"))
        return queries, keys, values

    def arguments(
        self, named: Mapping[str, Any], hidden: Tensor, mask: Tensor | None
    ) -> tuple[tuple[Tensor], dict[str, Any]]:
        """The arguments of a layer's call with other hidden states and another mask. Hidden states stay positional, as
        transformers expects."""
        assert named.get("attention_mask") is None, "these towers have no masks of their own"
        others = {name: value for name, value in named.items() if name != "hidden_states"}
        return (hidden,), others if mask is None else {**others, "attention_mask": mask}


@dataclass(frozen=True)
class RowLayers:
    """The encoder layers of a tower that take the patches of all images as (patches, width), possibly in a batch of
    one, with rotary embeddings along them, and the ends of segments (`cu_seqlens`) or a mask.

    after: the layers after which visual tokens may be dropped: those before the last that attend to whole frames.
    describe: returns the row of a call, from the arguments of the tower. All visual tokens have equally many patches.
    whole_images: whether the tower's images are whole images; False if it is given the frames of a video like images.
    """

    tower: Tower
    layers: nn.ModuleList
    after: tuple[int, ...]
    attention: RowAttention
    describe: Callable[[Mapping[str, Any]], Row]
    whole_images: bool = True

    @classmethod
    def of(
        cls,
        tower: Tower,
        vision: Any,
        after: Sequence[int],
        describe: Callable[[Mapping[str, Any]], Row],
        whole_images: bool = True,
    ) -> RowLayers | None:
        """The layers of a model's vision tower; None if there is no layer to drop after, or if they take a mask and the
        attention kernel does not."""
        attention = tower.attention
        if attention is None or not after:
            return None
        if attention.attend is None and kernel_of(vision) not in KERNELS:
            return None
        return cls(tower, tower.layers(vision), tuple(after), attention, describe, whole_images)

    def capture_points(self, number: int) -> Mapping[str, nn.Module]:
        """The modules that expose the queries, keys and values of a layer, by name."""
        return self.attention.points(self.layers[number]).outputs

    def project(
        self, number: int, captured: Mapping[str, Tensor], rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a layer, (patches, heads, width), as its attention multiplies them."""
        return self.attention.project(self.attention.points(self.layers[number]).attention, captured, rotation)


def takes_mask(module: nn.Module) -> bool:
    """Whether a module's forward takes an attention mask."""
    return "attention_mask" in signature(type(unwrap_part(module)).forward).parameters


def square_patches(rows: int, columns: int, side: int) -> Int[Tensor, "visual patches"]:
    """The patches, in raster order, of each visual token, which is a square in a raster of patches."""
    patches = torch.arange(rows * columns).view(rows // side, side, columns // side, side)
    return patches.transpose(1, 2).reshape(-1, side**2)


def restore_patches(output: Any, n_layers: int, restore: Callable[[int, Tensor], Tensor]) -> Any:
    """Apply `restore`, which gives dropped patches a place again, to every hidden state of a tower's output. It is also
    given the number of the layer that made the state."""
    if output.hidden_states is not None:
        first, *states = output.hidden_states
        rest = (None if state is None else restore(i, state) for i, state in enumerate(states))
        output.hidden_states = (first, *rest)
    output.last_hidden_state = restore(n_layers - 1, output.last_hidden_state)
    return output


def tokenwise_projector(adapter: Any) -> Callable[[], nn.Module] | None:
    """Return a function that returns the projector of an adapter's model, or what has been put around it since; None
    unless the projector is known to map every token by itself: the family's `tokenwise`."""
    projector = getattr(adapter.core, PROJECTOR, None)
    if not isinstance(projector, nn.Module):
        return None
    forward = type(unwrap_part(projector)).forward  # a subclass may have its own
    known = forward.__module__.startswith("transformers.models.")
    same = known and forward.__qualname__ == f"{adapter.tokenwise}.forward"
    return partial(getattr, adapter.core, PROJECTOR) if same else None


def early_layer(adapter: Any, layer: int | None) -> int | None:
    """The encoder layer that a strategy's `early_layer` refers to: None is the one at 3/8 of the depth or, of those
    that compare all patches of an image, the nearest, the later of two."""
    n_layers = len(adapter.tower.layers(adapter.vision_tower))
    wanted = max(round(n_layers * 3 / 8) - 1, 0)
    readable = getattr(adapter, "global_layers", range(n_layers))
    return min(readable, key=lambda i: (abs(i - wanted), -i), default=None) if layer is None else layer
