"""A strategy that prunes inside the language model, a model for it, and the oracle's results."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

import tokenprune
from helpers.contract.oracle import as_reported, dropped_columns, oracle_logits
from helpers.families.llava import Llava
from tokenprune import ScoreStrategy, Selection
from tokenprune.strategy import Stage, StagedStrategy
from tokenprune.tokens import StageTokens, VisualTokens

LAYERS = 5
STAGES = (Stage(1, 0.4), Stage(3, 0.2))


@dataclass(frozen=True)
class Staged(StagedStrategy, ScoreStrategy):
    """Scores features; the second image keeps more, if `ragged`."""

    keep_ratio: float | None = 0.6
    ragged: bool = False
    plan: tuple[Stage, ...] = STAGES

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return self.plan

    def score(self, tokens: VisualTokens) -> Tensor:
        return tokens.features.norm(dim=-1)

    def select(self, tokens: VisualTokens) -> Selection:
        whole = super().select(tokens)
        if not self.ragged:
            return whole
        assert whole.scores is not None
        count = min(4 + 9 * tokens.image, self.budget(tokens.n_visual))
        return Selection.first(whole.scores.argsort(descending=True), count, whole.scores)


class Deep(Llava):
    """A LLaVA with enough layers for stages."""

    def config(self) -> Any:
        config = super().config()
        config.text_config.num_hidden_layers = LAYERS
        return config


class DeepTower(Llava):
    """A LLaVA with more layers in its tower; the projector gets the output of the last but one."""

    def __init__(self, tower: str = "clip", n_layers: int = 6) -> None:
        super().__init__(f"llava-{tower}")
        self.n_layers = n_layers

    def config(self) -> Any:
        config = super().config()
        config.vision_config.num_hidden_layers = self.n_layers
        return config


FAMILY = Deep("llava-clip")


def model_of(attention: str = "sdpa") -> Any:
    return FAMILY.build(attention)


def expected(model: Any, ids: Tensor, real: Tensor, pixels: Tensor, reports: list[tokenprune.Report]) -> Tensor:
    with as_reported(model, ids, reports):
        return oracle_logits(model, ids, real, pixels, dropped_columns(ids, reports))


@dataclass(frozen=True)
class Guided(Staged):
    """Ranks by the last token's attention in the layer before each stage, like FastV."""

    needs = frozenset({"text_attention"})

    keep_ratio: float | None = 1.0

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return Selection.best(tokens.attention.from_last(), stage.budget(tokens.n_visual))


@dataclass(frozen=True)
class Ahead(Staged):
    """Drops tokens before the language model, and then ranks by the last token's attention in the layer ahead. The
    second image keeps more, if `ragged`."""

    needs = frozenset({"text_attention"})

    plan: tuple[Stage, ...] = (Stage(1, 0.4, looks_ahead=True), Stage(3, 0.2, looks_ahead=True))

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return Selection.best(tokens.attention.from_last(), min(stage.budget(tokens.n_visual), tokens.n_left))
