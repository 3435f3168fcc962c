"""PAR: Pruning All-Rounder (https://arxiv.org/abs/2412.06458), without its trained router."""

from __future__ import annotations

from dataclasses import dataclass

from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategies._parts.text_guided import OneStage
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import RankedStrategy, Stage
from tokenprune.tokens import StageTokens

#: Decoder layers at either end that are never skipped.
ENDS = 2


@register_strategy("par")
@dataclass(frozen=True)
class PAR(OneStage, RankedStrategy):
    """Prunes visual tokens and decoder layers: keeps, from decoder layer `layer` on, the visual tokens that the text
    after the image attends to most, and does not execute the layers of `skip`.

    skip: the skipped decoder layers, counted from 0 and ascending, as `tokenprune layers` finds them for a model on a
        few unlabelled questions; or a count, which skips that many layers right before the last two. The first two and
        the last two layers cannot be skipped. keep_ratio counts visual tokens only, whichever layers are skipped.
    cells: rank within cells of the grid, see `RankedStrategy`. The paper has no cells.

    Deviations: the paper trains a router that decides on tokens and layers together, for every sample; this strategy
    has no trained router. Tokens are ranked by the attention of layer `layer` - 1, averaged over heads and then over
    the text after the image; layers are ranked once per model, by how little they change their input. The released code
    masks tokens and still computes skipped layers. Here, tokens are dropped and kept ones keep their position IDs, and
    skipped layers cost and cache nothing, in prefill and decode.
    """

    skip: int | tuple[int, ...] | list[int] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.skip, list):  # settings files have lists
            object.__setattr__(self, "skip", tuple(self.skip))
        numbers = self.skip if isinstance(self.skip, tuple) else (self.skip,)
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
            raise SettingError(
                f"PAR: skip={self.skip!r} does not name decoder layers. Write skip=(7, 9) for layers 7 and 9, or a "
                f"count: skip=2."
            )

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        last = n_layers - ENDS
        layers = tuple(range(last - self.skip, last)) if isinstance(self.skip, int) else tuple(self.skip)
        if any(not ENDS <= layer < last for layer in layers):
            between = f"choose from {ENDS}..{last - 1}" if last > ENDS else "this model has no others"
            raise SettingError(
                f"PAR: skip={self.skip!r} reaches into the first or last {ENDS} of {n_layers} decoder layers, which "
                f"are never skipped; {between}."
            )
        return layers

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        scores, n_kept = tokens.attention.from_text(), stage.budget(tokens.n_visual)
        return Selection.first(self.ranked(scores, n_kept, tokens), n_kept, scores)
