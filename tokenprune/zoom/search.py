"""Coarse-to-fine search in an image far larger than the model's input (https://arxiv.org/abs/2503.07588), without
training: the language model's own attention shows where the question needs more detail.

    look = Zoom().look(model, processor, image, "where is the dog?")
    out = model.generate(**look.inputs)
    look.in_whole((0.1, 0.2, 0.3, 0.4))    # a box from the answer, in pixels of the whole image
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters import ModelAdapter, adapter_for
from tokenprune.adapters.conventions import unwrap_model
from tokenprune.adapters.devices import input_device
from tokenprune.checks import check_choice, check_count, check_keep_ratio, check_layer
from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.prompts import encode_chat
from tokenprune.selection import budget
from tokenprune.zoom.attention import QuestionAttention, question_attention
from tokenprune.zoom.pyramid import Box, Level, View, as_rgb, input_side, pyramid, thumbnail


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """The views of one level, as shown to the model, and the question's attention to each."""

    views: tuple[View, ...]
    attention: tuple[QuestionAttention, ...]

    @property
    def n_visual(self) -> int:
        """The number of visual tokens that were encoded."""
        return sum(image.n_visual for image in self.attention)

    @property
    def best(self) -> int:
        """The index of the view with the sharpest attention."""
        return max(range(len(self.attention)), key=lambda number: self.attention[number].focus)

    @property
    def focus(self) -> float:
        """The focus of the best view."""
        return self.attention[self.best].focus

    def votes(self) -> tuple[Float[Tensor, "tokens 2"], Float[Tensor, " tokens"]]:
        """The centers, in pixels of the whole image, and scores of the tokens that vote: those of tiles, or of the
        thumbnail if it is the only view."""
        both = list(zip(self.views, self.attention, strict=True))
        both = [pair for pair in both if pair[0].level is not None] or both
        centers = [_to_pixels(view, image.centers) for view, image in both]
        return torch.cat(centers), torch.cat([image.scores for _, image in both])


@dataclass(frozen=True, eq=False, repr=False)
class Look:
    """The outcome of a zoom.

    inputs: the inputs for `generate`.
    views: the views in these inputs, in order.
    steps: the levels that were searched, coarsest first.
    n_all: the number of visual tokens of the thumbnail and of every tile at full resolution.
    """

    inputs: Any
    views: tuple[View, ...]
    steps: tuple[Step, ...]
    n_all: int

    @property
    def n_visual(self) -> int:
        """The number of visual tokens that the search encoded and that the answer needs."""
        per_view = self.steps[0].attention[0].n_visual
        return sum(step.n_visual for step in self.steps) + per_view * len(self.views)

    def in_whole(self, box: Box, view: int = -1) -> Box:
        """Convert a box in fractions of one of the `views` to pixels of the whole image."""
        return self.views[view].in_whole(box)

    def __repr__(self) -> str:
        share = self.n_visual / self.n_all
        views = ", ".join(map(str, self.views))
        encoded = f"{self.n_visual} visual tokens, {share:.1%} of those of the thumbnail and all tiles"
        lines = [f"Look(encoded {encoded}; answers from {views})"]
        for step in self.steps:
            tiles = ", ".join(
                f"({view.row}, {view.column}) {image.focus:.2f}"
                for view, image in zip(step.views, step.attention, strict=True)
                if view.level is not None
            )
            name = "thumbnail" if step.views[-1].level is None else f"level {step.views[-1].level}"
            lines.append(f"  {name}: {tiles or f'{step.focus:.2f}'}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Zoom:
    """Settings of a coarse-to-fine search.

    layer: the decoder layer whose attention guides the search; None is the middle one. The best layer differs between
        models, so try several.
    keep_ratio: the fraction of a level's visual tokens that vote for tiles of the next level.
    tiles: the maximum number of tiles shown from each level except the coarsest, which is always shown completely.
    prompts: "apart" asks about each view in a prompt of its own, which any model can answer; the final answer comes
        from the view with the sharpest attention. "together" puts the thumbnail and a level's tiles into one prompt, as
        the paper does; the model must have been trained on several images per prompt.
    tile: the side of a tile in pixels; None is the size that the processor resizes a square image to.
    batch_size: the number of views encoded at once with prompts="apart".

    Raises SettingError for invalid settings.
    """

    layer: int | None = None
    keep_ratio: float = 0.25
    tiles: int = 6
    prompts: Literal["apart", "together"] = "apart"
    tile: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_keep_ratio("Zoom", self.keep_ratio)
        check_choice("Zoom", "prompts", self.prompts, ("apart", "together"))
        for name in ("tiles", "batch_size", *(["tile"] if self.tile is not None else [])):
            check_count("Zoom", name, getattr(self, name))
        check_layer("Zoom", self.layer, "a decoder layer", 8)

    def look(
        self,
        model: Any,
        processor: Any,
        image: Any,
        question: str,
        *,
        adapter: type[ModelAdapter] | None = None,
    ) -> Look:
        """Search a PIL image level by level, as long as each level gets sharper attention than all before it.

        adapter: an adapter class to use instead of the one registered for the model's class, as for `patch`.

        A patch of the model is suspended during the search; it prunes the prompt of the answer as usual. Raises
        SettingError for anything but an image; UnsupportedError for a model whose text attention cannot be read or
        whose visual tokens have no known place in the image, and for a processor that splits a view into several
        images; PruningError for attention that is not finite.
        """
        layer, tile = self.layer_of(model, adapter), self.tile or input_side(processor)
        image = as_rgb(image)
        width, height = image.size
        overview, levels = thumbnail(width, height), pyramid(width, height, tile)

        def step(views: Sequence[View]) -> Step:
            rows = [views] if self.prompts == "together" else [[view] for view in views]
            images: list[QuestionAttention] = []
            for start in range(0, len(rows), self.batch_size):
                batch = [[view.crop(image, tile) for view in row] for row in rows[start : start + self.batch_size]]
                images += question_attention(model, _encode(model, processor, batch, question), layer, adapter)
            if len(images) != len(views):
                raise UnsupportedError(
                    f"{type(processor).__name__} makes {len(images)} images of {len(views)} views, and of which places "
                    f"is unknown. Give Zoom a smaller tile, or switch the processor's own tiling off."
                )
            return Step(tuple(views), tuple(images))

        steps = [step([overview, *(view for level in levels[:1] for view in level.views())])]
        for level in levels[1:]:
            chosen = self.choose(steps[-1], level)
            steps.append(step([overview, *chosen] if self.prompts == "together" else chosen))
            if steps[-1].focus <= max(before.focus for before in steps[:-1]):
                break
        best = max(steps, key=lambda step: step.focus)
        views = best.views if self.prompts == "together" else (centered(best, width, height),)
        inputs = _encode(model, processor, [[view.crop(image, tile) for view in views]], question)
        n_all = steps[0].attention[0].n_visual * (1 + (levels[-1].rows * levels[-1].columns if levels else 0))
        return Look(inputs, views, tuple(steps), n_all)

    def choose(self, step: Step, level: Level) -> list[View]:
        """The tiles of the next level to show, given the step before."""
        centers, scores = step.votes()
        return vote(centers, scores, self.keep_ratio, level, self.tiles)

    def layer_of(self, model: Any, adapter: type[ModelAdapter] | None = None) -> int:
        """The decoder layer of this model that is read. Raises SettingError if it has no such layer."""
        n_layers = len(adapter_for(unwrap_model(model), adapter).layers)
        layer = max(0, min(n_layers // 2, n_layers - 2)) if self.layer is None else self.layer
        if not 0 <= layer < n_layers:
            raise SettingError(f"Zoom: layer={layer} is not one of this model's decoder layers, 0..{n_layers - 1}.")
        return layer


def vote(
    centers: Float[Tensor, "tokens 2"], scores: Float[Tensor, " tokens"], keep_ratio: float, level: Level, most: int
) -> list[View]:
    """The tiles of a level that contain its voters: at most `most`, in reading order.

    The voters are the `keep_ratio` of tokens with the highest scores. Tokens whose center is outside the image do not
    vote; if all centers are, because the image is narrower than half a token, those nearest to it vote. If the voters
    lie in more than `most` tiles, the tiles with the largest sum of squared scores win. (The paper's released code
    instead counts the voters of each tile and keeps every tile, so that many weakly attended tokens outvote a few
    strongly attended ones.)
    """
    edges = torch.tensor([level.width, level.height], device=centers.device)
    beyond = (centers - edges).amax(1, keepdim=True)
    if bool((beyond >= 0).all()):
        centers = torch.where(beyond == beyond.min(), centers.minimum(edges - 0.5), torch.inf)
    tiles = [level.tile_at(x, y) for x, y in centers.tolist()]
    inside = torch.tensor([i for i, tile in enumerate(tiles) if tile is not None], device="cpu")
    best = inside[scores[inside].argsort(descending=True, stable=True)[: budget(len(inside), keep_ratio, None)]]
    focus: defaultdict[tuple[int, int], float] = defaultdict(float)
    for i in best.tolist():
        tile = tiles[i]
        assert tile is not None
        focus[tile] += float(scores[i]) ** 2
    ranked = sorted(focus, key=lambda tile: (-focus[tile], tile))
    return [level.view(*tile) for tile in sorted(ranked[:most])]


def centered(step: Step, width: int, height: int) -> View:
    """A square as large as the step's best view, centred on the highest attention so that it shows in one piece what a
    tile border would cut, and kept inside the image if it fits. The thumbnail is not moved.
    """
    view, best = step.views[step.best], step.attention[step.best]
    if view.level is None:
        return view
    span = view.box[2] - view.box[0]
    centers, scores = step.votes()
    peak = _to_pixels(view, best.centers)[best.scores.argmax()]
    near = ((centers - peak).abs() <= span / 2).all(1)
    middle = (centers[near] * scores[near, None]).sum(0) / scores[near].sum()
    x, y = (
        min(max(0.0, at - span / 2), max(0.0, side - span))
        for at, side in zip(middle.tolist(), (width, height), strict=True)
    )
    return View((x, y, x + span, y + span), view.level, view.row, view.column)


def _to_pixels(view: View, centers: Float[Tensor, "tokens 2"]) -> Float[Tensor, "tokens 2"]:
    left, top, right, bottom = view.box
    corner, sides = centers.new_tensor([[left, top], [right - left, bottom - top]])
    return corner + centers * sides


def _encode(model: Any, processor: Any, images: Sequence[Sequence[Any]], question: str) -> Any:
    inner = unwrap_model(model)  # a wrapper may not say where it is
    return encode_chat(processor, images, [question] * len(images)).to(input_device(inner), inner.dtype)
