"""How one kind of vision encoder is read, including its queries and keys; and where the `Tower` of an encoder is found:
among ours, those that were registered, and those of installed packages.

Functions for `Tower.heads` get a `call` and the tower's config. The call holds the outputs of the capture points by
name, the arguments of the attention under "attention", its module under "attention_module", and the arguments of the
tower under "tower".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.towers.attention import RowAttention
from tokenprune.adapters.towers.row import PatchRow
from tokenprune.encoded import CapturePoints
from tokenprune.entry_points import entry_points_of, load_entry_point, warn_of_namesakes
from tokenprune.errors import UnsupportedError

#: Mean and standard deviation of each channel.
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]

UNNORMALISED: Normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
HALVES: Normalisation = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP_COLORS: Normalisation = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


#: Queries and keys, (heads, tokens, width) per tile. A tower that pads its tiles adds a mask of the tokens that are not
#: padding, (tokens,) per tile; one with a resampler adds such a mask and the share of each patch in each visual token,
#: (visual, patches) per tile.
QueryKey = tuple[Sequence[Tensor], ...]


def scale_of_width(tower: Any) -> float:
    """1 / sqrt(head width)."""
    return (tower.config.hidden_size // tower.config.num_attention_heads) ** -0.5


@dataclass(frozen=True)
class Tower:
    """Where a vision encoder keeps its layers and attention.

    layers: returns the encoder layers of a tower module.
    capture_points: returns the modules of a layer that expose its attention.
    n_prefix: the number of tokens before the patches (1 for a CLS token).
    heads: returns the queries and keys of every tile, from what the capture points returned and the tower's config;
        None for projections, (tiles, tokens, heads * width), without rotary embeddings or padding.
    scale: returns the factor of q . k in a tower module's attention.
    normalisation: what the processor normalises images with.
    values: returns the module of a layer that returns its values; only for towers whose layers accept a subset of the
        patches (no windows, no rotary embeddings, no padding), None otherwise.
    row: how the tower takes the patches of all images in one row, so that some may be left out; None if it does not.
    attention: how attention is read in a tower that takes the patches of all images in one row, so that some may be
        dropped between its layers; None if they may not.

    All functions must be picklable, so not lambdas: a patched model holds them.
    """

    layers: Callable[[Any], nn.ModuleList]
    capture_points: Callable[[Any], CapturePoints]
    n_prefix: int
    heads: Callable[[Mapping[str, Any], Any], QueryKey] | None = None
    scale: Callable[[Any], float] = scale_of_width
    normalisation: Normalisation = HALVES
    values: Callable[[Any], nn.Module] | None = None
    row: PatchRow | None = None
    attention: RowAttention | None = None

    def late_layers(self, tower: Any) -> list[nn.Module]:
        """The layers whose mean output is the statistic "late_features": the last third, and the one before it."""
        layers = self.layers(tower)
        return list(layers)[-1 - len(layers) // 3 :]

    def colors(self, pixels: Float[Tensor, "tiles 3 height width"]) -> Float[Tensor, "tiles 3 height width"]:
        """RGB in 0..1: undoes the normalisation that towers of this kind are trained with. A processor that normalises
        differently gives different colours."""
        mean, std = pixels.new_tensor(self.normalisation, dtype=torch.float32)[..., None, None]
        return (pixels.float() * std + mean).clamp(0, 1)


def encoder_layers(tower: Any) -> nn.ModuleList:
    """The layers of a tower in CLIP's structure."""
    return getattr(tower, "vision_model", tower).encoder.layers  # up to 5.1x, the tower is one module deeper


def projections(attention: Any) -> CapturePoints:
    """The capture points of an attention module with separate query and key projections."""
    return CapturePoints(attention, {"queries": attention.q_proj, "keys": attention.k_proj})


def projected_points(layer: Any) -> CapturePoints:
    """`projections` of a layer's `self_attn`."""
    return projections(layer.self_attn)


def norms(attention: Any) -> CapturePoints:
    """The capture points of an attention module that norms its queries and keys."""
    return CapturePoints(attention, {"queries": attention.q_norm, "keys": attention.k_norm})


#: Entry points of other distributions, each named after a model_type.
GROUP = "tokenprune.towers"
TOWERS: dict[str, Tower] = {}


def register_tower(model_type: str, tower: Tower) -> Tower:
    """Register how vision encoders with this `config.model_type` are read; works from any package. The last one
    registered counts. Returns `tower`."""
    TOWERS[model_type] = tower
    return tower


def tower_of(model_type: str, owner: str) -> Tower:
    """Return the Tower for a vision config's model_type. `owner` names the model in the error.

    An installed package's tower is only imported for a type that is not registered. Warns if a package has a tower for
    a registered type; the registered one is used. Raises UnsupportedError for an unknown type.
    """
    if model_type in TOWERS:
        tower = TOWERS[model_type]
        warn_of_namesakes(
            GROUP,
            model_type,
            tower,
            f"a vision tower for {model_type}",
            lambda entry: (
                f"For theirs, import {entry.attr} from {entry.module}, and register_tower({model_type!r}, it)."
            ),
        )
        return tower
    installed = entry_points_of(GROUP)
    if model_type not in installed:
        raise UnsupportedError(
            f"{owner} has a {model_type!r} vision tower, whose visual tokens tokenprune cannot place on a grid. "
            f"Supported: {', '.join(sorted({*TOWERS, *installed}))}. Add one with "
            f"tokenprune.adapters.register_tower({model_type!r}, Tower(...)), see adapters/README.md."
        )
    loaded = load_entry_point(
        installed[model_type],
        f"the vision tower for {model_type}",
        lambda tower: isinstance(tower, Tower),
        "a tokenprune.adapters.Tower",
    )
    return register_tower(model_type, loaded)
