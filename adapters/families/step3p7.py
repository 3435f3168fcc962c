"""Step 3.7: crops of an image, each between markers, and then the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt
from operator import attrgetter
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from tokenprune.adapters.layouts.crops import corner, image_by_image
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.attention import apply_rotary
from tokenprune.adapters.towers.tower import CLIP_COLORS, QueryKey, projected_points
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout

#: Patches to a visual token, in each direction: two convolutions with a stride of two.
SIDE = 4


@register_adapter("Step3p7ForConditionalGeneration")
class Step3p7Adapter(KnownTowerAdapter):
    """For Step3p7ForConditionalGeneration. Markers are text and stay. The convolutions after the tower overlap: a
    visual token is given the patches of its own square, and sees a little of those to the left of it and above."""

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_model", None)

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_whole = output.last_hidden_state.shape[1]
        counts = arguments.get("num_local_patches")
        counts = [0] * len(output.pooler_output) if counts is None else [int(count) for count in counts]
        layouts = []
        for image, n_crops in zip(output.pooler_output, counts, strict=True):
            part, side = isqrt((len(image) - n_whole) // max(n_crops, 1)), isqrt(n_whole)
            layouts.append(image_layout(n_crops, part, side))
        return layouts

    def by_image(self, statistic: str, tiles: list[Any], layouts: Sequence[Layout]) -> list[Any]:
        return image_by_image(statistic, tiles, layouts)


def image_layout(n_crops: int, part: int, side: int) -> Layout:
    """The layout of an image of part x part visual tokens in each crop, and side x side in the whole, which is last."""
    return Layout.concat([*[square(part)] * n_crops, square(side)]) if n_crops else square(side)


def square(side: int) -> Layout:
    """The layout of a tile of side x side visual tokens."""
    return Layout(((1, side, side),), to_tokens=partial(to_tokens, side=side))


def to_tokens(values: Float[Tensor, "one patches"], side: int) -> Float[Tensor, " visual"]:
    """Average the patches of every visual token."""
    return avg_pool2d(corner(values, side * SIDE), SIDE).flatten()


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Rotated queries and keys of every tile; all tiles of a call have the same positions."""
    cos, sin = call["attention"]["position_embeddings"]

    def rotated(states: Float[Tensor, "tiles patches heads_width"]) -> list[Tensor]:
        split = rearrange(states, "tile patch (head width) -> tile patch head width", head=config.num_attention_heads)
        return [rearrange(apply_rotary(tile, cos, sin), "patch head width -> head patch width") for tile in split]

    return rotated(call["queries"]), rotated(call["keys"])


TOWER = Tower(
    attrgetter("layers"),
    projected_points,
    n_prefix=0,
    heads=heads,
    normalisation=CLIP_COLORS,
)
