"""Coarse to fine: look at a picture far larger than the model's input only where the question needs it
(https://arxiv.org/abs/2503.07588), without training: the language model's own attention says where.

    look = Zoom().look(model, processor, picture, "where is the dog?")
    out = model.generate(**look.inputs)
    look.in_whole((0.1, 0.2, 0.3, 0.4))    # a box that it answers, in pixels of the whole picture
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters import adapter_for
from tokenprune.adapters.wrappers import unwrap_model
from tokenprune.errors import SettingError
from tokenprune.selection import budget, check_budget
from tokenprune.strategy import check_choice
from tokenprune.zoom.probe import Seen, glance
from tokenprune.zoom.prompts import ask, input_side
from tokenprune.zoom.pyramid import Box, Level, View, pyramid, thumbnail


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """What was looked at of one level, and how the question attended to it."""

    views: tuple[View, ...]
    seen: tuple[Seen, ...]

    @property
    def n_visual(self) -> int:
        """How many visual tokens were encoded."""
        return sum(seen.n_visual for seen in self.seen)

    @property
    def best(self) -> int:
        """The view that is attended to most sharply."""
        return max(range(len(self.seen)), key=lambda number: self.seen[number].focus)

    @property
    def focus(self) -> float:
        """How sharply it is."""
        return self.seen[self.best].focus

    def points(self) -> tuple[Float[Tensor, "tokens 2"], Float[Tensor, " tokens"]]:
        """The places, in pixels of the whole picture, and scores of the tokens that vote: those of tiles, or of the
        thumbnail where there is nothing else."""
        both = list(zip(self.views, self.seen, strict=True))
        both = [pair for pair in both if pair[0].level is not None] or both
        places = [_pixels(view, seen.places) for view, seen in both]
        return torch.cat(places), torch.cat([seen.scores for _, seen in both])


@dataclass(frozen=True, eq=False, repr=False)
class Look:
    """The outcome of a zoom.

    inputs: for `generate`.
    views: what they show, picture by picture.
    steps: what was looked at to find it, the coarsest first.
    n_all: the visual tokens of the thumbnail and of every tile at full resolution.
    """

    inputs: Any
    views: tuple[View, ...]
    steps: tuple[Step, ...]
    n_all: int

    @property
    def n_visual(self) -> int:
        """How many visual tokens the zoom encoded, and how many more the answer needs."""
        per_view = self.steps[0].seen[0].n_visual
        return sum(step.n_visual for step in self.steps) + per_view * len(self.views)

    def in_whole(self, box: Box, view: int = -1) -> Box:
        """A box in fractions of one of the `views`, in pixels of the whole picture."""
        return self.views[view].in_whole(box)

    def __repr__(self) -> str:
        share = self.n_visual / self.n_all
        lines = [f"Look(encoded {self.n_visual} of {self.n_all} visual tokens, {share:.1%}; answers from {self.views})"]
        for step in self.steps:
            tiles = ", ".join(
                f"({view.row}, {view.column}) {seen.focus:.2f}"
                for view, seen in zip(step.views, step.seen, strict=True)
                if view.level is not None
            )
            name = "thumbnail" if step.views[-1].level is None else f"level {step.views[-1].level}"
            lines.append(f"  {name}: {tiles or f'{step.focus:.2f}'}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Zoom:
    """How to look.

    layer: the decoder layer whose last text row says which tokens the question needs; None is the middle one. Which one
        knows differs between models: try.
    keep_ratio: the fraction of a level's visual tokens that vote for tiles of the next.
    tiles: how many tiles are looked at, at most, in every level but the coarsest, which is seen as a whole.
    prompts: "apart" asks each view by itself, which any model can answer, and the answer comes from the one that is
        attended to most sharply; "together" asks the thumbnail and a level's tiles in one prompt, as the paper does,
        which needs a model that was trained on several pictures.
    tile: the side of a tile in pixels; None is what the processor resizes a square to.
    batch_size: how many views are encoded at once with prompts="apart".

    Raises SettingError for settings that cannot be right.
    """

    layer: int | None = None
    keep_ratio: float = 0.25
    tiles: int = 6
    prompts: Literal["apart", "together"] = "apart"
    tile: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_budget("Zoom", self.keep_ratio, None)
        check_choice("Zoom", "prompts", self.prompts, ("apart", "together"))
        for name in ("tiles", "batch_size", *(["tile"] if self.tile is not None else [])):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise SettingError(f"Zoom: {name}={getattr(self, name)!r} is no count. Write a number from 1 on.")

    def look(self, model: Any, processor: Any, picture: Any, question: str) -> Look:
        """Looks at a PIL picture level by level, as long as a level is attended to more sharply than those before.

        A patch that the model has takes no part in it, and prunes the answer's prompt as any other. Raises
        UnsupportedError for a model that cannot be patched with in-LLM stages.
        """
        layer, tile = self.layer_of(model), self.tile or input_side(processor)
        width, height = picture.size
        whole, levels = thumbnail(width, height), pyramid(width, height, tile)

        def step(views: Sequence[View]) -> Step:
            rows = [views] if self.prompts == "together" else [[view] for view in views]
            found: list[Seen] = []
            for start in range(0, len(rows), self.batch_size):
                batch = [[view.picture(picture, tile) for view in row] for row in rows[start : start + self.batch_size]]
                found += glance(model, _to(model, ask(processor, batch, question)), layer)
            return Step(tuple(views), tuple(found))

        steps = [step([whole, *(view for level in levels[:1] for view in level.views())])]
        for level in levels[1:]:
            chosen = self.choose(steps[-1], level)
            steps.append(step([whole, *chosen] if self.prompts == "together" else chosen))
            if steps[-1].focus <= max(before.focus for before in steps[:-1]):
                break
        best = max(steps, key=lambda step: step.focus)
        views = best.views if self.prompts == "together" else (centred(best, width, height),)
        inputs = _to(model, ask(processor, [[view.picture(picture, tile) for view in views]], question))
        n_all = steps[0].seen[0].n_visual * (1 + (levels[-1].rows * levels[-1].columns if levels else 0))
        return Look(inputs, views, tuple(steps), n_all)

    def choose(self, step: Step, level: Level) -> list[View]:
        """The tiles of the next level that are looked at, given what the one before showed."""
        places, scores = step.points()
        return vote(places, scores, self.keep_ratio, level, self.tiles)

    def layer_of(self, model: Any) -> int:
        """Which decoder layer of this model is read. Raises SettingError where it has no such layer."""
        n_layers = len(adapter_for(unwrap_model(model)).layers)
        layer = min(n_layers // 2, n_layers - 2) if self.layer is None else self.layer
        if not 0 <= layer < n_layers - 1:
            raise SettingError(
                f"Zoom: layer={layer} is not one of 0..{n_layers - 2}, the decoder layers of this model but its last."
            )
        return layer


def vote(
    places: Float[Tensor, "tokens 2"], scores: Float[Tensor, " tokens"], keep_ratio: float, level: Level, most: int
) -> list[View]:
    """The tiles of a level that the best-scored `keep_ratio` of tokens lie in, row by row: at most so many, those that
    get the sharpest attention, by the sum of squares. (The released code of the paper counts tokens instead, and then
    takes all tiles; a few sharp tokens are lost among many blurred ones so.) Tokens beyond the picture's edge do not
    vote.
    """
    tiles = [level.tile_at(x, y) for x, y in places.tolist()]
    inside = torch.tensor([i for i, tile in enumerate(tiles) if tile is not None])
    best = inside[scores[inside].argsort(descending=True, stable=True)[: budget(len(inside), keep_ratio, None)]]
    focus: defaultdict[tuple[int, int], float] = defaultdict(float)
    for i in best.tolist():
        tile = tiles[i]
        assert tile is not None
        focus[tile] += float(scores[i]) ** 2
    ranked = sorted(focus, key=lambda tile: (-focus[tile], tile))
    return [level.view(*tile) for tile in sorted(ranked[:most])]


def centred(step: Step, width: int, height: int) -> View:
    """A square as large as the step's best view, moved to where attention is highest, so that what a tile's edge cuts
    in two is seen whole; inside the picture where it can be. The thumbnail is seen as it is.
    """
    view, best = step.views[step.best], step.seen[step.best]
    if view.level is None:
        return view
    span = view.box[2] - view.box[0]
    places, scores = step.points()
    peak = _pixels(view, best.places)[best.scores.argmax()]
    near = ((places - peak).abs() <= span / 2).all(1)
    middle = (places[near] * scores[near, None]).sum(0) / scores[near].sum()
    x, y = (
        min(max(0.0, at - span / 2), max(0.0, side - span))
        for at, side in zip(middle.tolist(), (width, height), strict=True)
    )
    return View((x, y, x + span, y + span), view.level, view.row, view.column)


def _pixels(view: View, places: Float[Tensor, "tokens 2"]) -> Float[Tensor, "tokens 2"]:
    left, top, right, bottom = view.box
    return torch.tensor([left, top]) + places * torch.tensor([right - left, bottom - top])


def _to(model: Any, inputs: Any) -> Any:
    return inputs.to(model.device, model.dtype)
