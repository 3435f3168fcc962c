"""Random strategies: every registered one with random settings, and three that use each mechanism at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor

from tokenprune.selection import Merge, Selection
from tokenprune.strategies import STRATEGIES, CDPruner
from tokenprune.strategy import Stage, StagedStrategy, Strategy, TowerStrategy
from tokenprune.tokens.stages import StageTokens
from tokenprune.tokens.tower import TowerTokens
from tokenprune.tokens.visual import VisualTokens

Settings = dict[str, Any]


def budget(rng: Random, tile: bool = True) -> Settings:
    """Return a keep ratio or a count, sometimes one per tile."""
    kind: Settings = {"keep_ratio": ratio(rng)} if rng.random() < 0.75 else {"keep": rng.randint(1, 20)}
    return {**kind, "budget_per": "tile"} if tile and rng.random() < 0.2 else kind


def cells(rng: Random) -> Settings:
    return {"cells": rng.choice([None, "auto", 2, 3])}


def features(rng: Random) -> Settings:
    return {"features": rng.choice(["tower", "projected"])}


def mass(rng: Random) -> Settings:
    """Sometimes, return a share of the scores to keep instead of a number of tokens."""
    return {"mass": round(rng.uniform(0.05, 1.0), 3), "least": 0.0} if rng.random() < 0.3 else {}


def ratio(rng: Random) -> float:
    return rng.choice([round(rng.uniform(0.05, 0.95), 3), 0.25, 0.5, 1.0, 0.001])


def encoder_layer(rng: Random) -> Settings:
    return {} if rng.random() < 0.6 else {"layer": rng.choice([-2, -1, 0, 1])}


def decoder_layer(rng: Random, n_layers: int) -> Settings:
    return {"layer": rng.randint(1, max(1, n_layers - 1))}


def one_stage(rng: Random, n_layers: int) -> Settings:
    average = {"average": True, "keep_ratio": round(rng.uniform(0.4, 0.95), 3)}
    return {**(average if rng.random() < 0.2 else budget(rng, tile=False)), **decoder_layer(rng, n_layers)}


def average(rng: Random) -> Settings:
    return {"keep_ratio": round(rng.uniform(0.2, 0.95), 3)}


def skipped(rng: Random, n_layers: int) -> Settings:
    inner = range(2, n_layers - 2)
    chosen = tuple(sorted(rng.sample(inner, rng.randint(0, len(inner)))))
    return {"skip": rng.choice([chosen, min(1, len(inner))])}


#: The settings of each registered strategy, for a language model of n layers; others only get a budget.
SETTINGS: dict[str, Callable[[Random, int], Settings]] = {
    "random": lambda rng, n: {**budget(rng), "seed": rng.randrange(100)},
    "fopru": lambda rng, n: {
        **budget(rng),
        **mass(rng),
        **encoder_layer(rng),
        "mode": rng.choice(["rank", "row"]),
        "score": rng.choice(["column", "column", "cls"]),
        "heads": rng.choice(["mean", "max"]),
    },
    "visionzip": lambda rng, n: {
        **budget(rng),
        **mass(rng),
        **encoder_layer(rng),
        **cells(rng),
        "contextual": rng.choice([0.16, rng.random()]),
    },
    "nuwa": lambda rng, n: {
        **average(rng),
        **encoder_layer(rng),
        **cells(rng),
        "gather": rng.random() < 0.7,
        "progressive": rng.random() < 0.7,
        "reach": rng.choice([1.5, 16.7]),
    },
    "mosaic": lambda rng, n: {
        **budget(rng),
        **encoder_layer(rng),
        "score": rng.choice(["column", "cls"]),
        "merge": rng.random() < 0.8,
        "reach": rng.choice([0.5, 1.0, 3.0]),
    },
    "scope": lambda rng, n: {
        **budget(rng),
        **encoder_layer(rng),
        **features(rng),
        "alpha": rng.choice([0.0, 1.0, 2.0]),
    },
    "holov": lambda rng, n: {**budget(rng), **encoder_layer(rng), "crops": rng.choice([1, 4, 16])},
    "dart": lambda rng, n: {**one_stage(rng, n), "pivots": rng.randint(1, 5), "text_pivots": rng.randint(1, 5)},
    "prumerge": lambda rng, n: {
        **budget(rng),
        **mass(rng),
        **encoder_layer(rng),
        "plus": rng.random() < 0.5,
        "neighbours": rng.choice([1, 3, 32]),
    },
    "vispruner": lambda rng, n: {
        **budget(rng),
        **mass(rng),
        **encoder_layer(rng),
        **cells(rng),
        **features(rng),
        "important": rng.choice([0.0, 0.5, 1.0]),
    },
    "backgroundpruning": lambda rng, n: {
        **budget(rng, tile=False),
        **encoder_layer(rng),
        "budget_per": rng.choice(["image", "tile"]),
        "threshold": rng.choice([None, 0.95, 0.3, -1.0]),
        "quantile": rng.choice([0.0, 0.1, 0.5, 1.0]),
        "cluster": rng.random() < 0.8,
        "rank": rng.choice(["cls", "column", "distinct"]),
    },
    "vflowopt": lambda rng, n: {
        **average(rng),
        **encoder_layer(rng),
        "alpha": rng.choice([0.0, 0.4]),
        "threshold": rng.choice([1.0, 30.0]),
        "recycle": rng.random() < 0.7,
        "progressive": rng.random() < 0.7,
        "cell": rng.choice([None, None, 1.0, 2.0]),
    },
    "fastv": lambda rng, n: {**one_stage(rng, n), **cells(rng), "queries": rng.choice(["last", "all"])},
    "efficientvla": lambda rng, n: {
        **one_stage(rng, n),
        **skipped(rng, n),
        "key": rng.randint(1, 6),
        "alpha": rng.random(),
    },
    "par": lambda rng, n: {**one_stage(rng, n), **skipped(rng, n)},
    "adatoken": lambda rng, n: {"keep_ratio": round(rng.uniform(0.5, 0.95), 3), **cells(rng)},
    "attentionmass": lambda rng, n: {
        **budget(rng, tile=False),
        **decoder_layer(rng, n),
        "mass": rng.choice([0.5, 0.95, 1.0]),
        "every": rng.randint(1, 3),
    },
    "pyramiddrop": lambda rng, n: {**average(rng), "first": rng.choice([None, None, 1])},
    "sparsevlm": lambda rng, n: {**average(rng), "recycle": rng.choice([0.0, 0.3, 1.0]), "clusters": rng.random()},
}


def hashed(features: Tensor, seed: int) -> Tensor:
    """Return pseudo-random numbers from 0 to 1 that depend only on the features and a seed."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(features.shape[-1], generator=generator)
    return (features.float() @ direction * 997).sin().abs()


def any_merge(kept: Tensor, features: Tensor, seed: int) -> Merge | None:
    """Return a merge of random pairs of a kept token and any other, with random weights; None if nothing is dropped."""
    generator = torch.Generator().manual_seed(seed + len(features))
    if len(kept) == len(features) or torch.rand((), generator=generator) < 0.4:
        return None
    n_pairs = int(torch.randint(1, 2 * len(features) + 1, (), generator=generator))
    targets = torch.randint(len(kept), (n_pairs,), generator=generator)
    sources = torch.randint(len(features), (n_pairs,), generator=generator)
    return Merge.mean(targets, sources, torch.rand(n_pairs, generator=generator) + 0.1, len(kept))


def chosen(features: Tensor, n_kept: int, seed: int, merge: bool) -> Selection:
    best = Selection.best(hashed(features, seed), n_kept)
    return Selection(best.kept, best.n_visual, best.scores, any_merge(best.kept, features, seed) if merge else None)


@dataclass(frozen=True)
class AnyMerge(Strategy):
    """Keeps random tokens, and merges random others into them."""

    seed: int = 0

    def select(self, tokens: VisualTokens) -> Selection:
        return chosen(tokens.features, self.budget(tokens.n_visual), self.seed, merge=True)


@dataclass(frozen=True)
class AnyStages(StagedStrategy):
    """Keeps random tokens in random stages, merges random ones into them, and skips random layers."""

    seed: int = 0
    plan: tuple[Stage, ...] = ()
    skip: tuple[int, ...] = ()

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return self.plan

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        return self.skip

    def select(self, tokens: VisualTokens) -> Selection:
        return chosen(tokens.features, self.budget(tokens.n_visual), self.seed, merge=self.seed % 2 == 0)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        n_kept = min(stage.budget(tokens.n_visual), tokens.n_left)
        if stage.at_most:  # different numbers in the rows of a batch
            n_kept = max(1, n_kept - int(hashed(tokens.features[:1], self.seed) * n_kept))
        return chosen(tokens.features, n_kept, self.seed + stage.layer, merge=self.seed % 3 == 0)


@dataclass(frozen=True)
class AnyInTower(TowerStrategy):
    """Drops random patches after random encoder layers, and random ones of the rest before the language model."""

    needs: ClassVar[frozenset[str]] = frozenset({"kept_in_tower"})

    seed: int = 0

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        drawn = Random(self.seed)
        return tuple(sorted(drawn.sample(range(n_layers), drawn.randint(1, n_layers))))

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        features = tokens.values.transpose(0, 1).flatten(1)[-len(tokens.left) :]
        n_kept = max(1, round(len(tokens.left) * (0.5 + 0.5 * float(hashed(features[:1], self.seed)))))
        return Selection.best(hashed(features, self.seed), n_kept)

    def select(self, tokens: VisualTokens) -> Selection:
        before = tokens.kept_in_tower.kept
        n_kept = min(self.budget(tokens.n_visual), len(before))
        best = Selection.best(hashed(tokens.features[before], self.seed), n_kept).kept
        return Selection(before[best], tokens.n_visual)


@dataclass(frozen=True)
class Norm:
    """A relevance function whose `repr` is the same in every process."""

    def __call__(self, tokens: VisualTokens) -> Tensor:
        return tokens.features.norm(dim=-1)


def any_stages(rng: Random, n_layers: int) -> AnyStages:
    layers = sorted(rng.sample(range(1, n_layers), rng.randint(1, min(3, n_layers - 1))))
    ratios = sorted((rng.uniform(0.05, 1) for _ in layers), reverse=True)
    at_most = rng.random() < 0.5
    plan = tuple(Stage(layer, share, at_most=at_most) for layer, share in zip(layers, ratios, strict=True))
    skip = tuple(sorted(rng.sample(range(1, n_layers), rng.randint(0, 2)))) if n_layers > 2 else ()
    return AnyStages(seed=rng.randrange(1000), plan=plan, skip=skip, **budget(rng))


OWN: dict[str, Callable[[Random, int], Strategy]] = {
    "cdpruner": lambda rng, n: CDPruner(relevance=Norm(), **budget(rng)),
    "any merge": lambda rng, n: AnyMerge(seed=rng.randrange(1000), **budget(rng)),
    "any stages": any_stages,
    "any in tower": lambda rng, n: AnyInTower(seed=rng.randrange(1000), **budget(rng, tile=False)),
}
#: Strategies that the oracle does not support: merging in the tower, and pruning or shrinking before it.
NOT_DRAWN = ("tome", "pixelprune", "downsample")
#: All others but those that compare frames, since no draw has a video.
NAMES = (*(name for name, cls in STRATEGIES.items() if name not in NOT_DRAWN and "frames" not in cls().needs), *OWN)
IN_TOWER = ("flowcut", "any in tower")


def make(name: str, rng: Random, n_layers: int) -> Strategy:
    """Return a strategy of this name with random settings. Raises SettingError for an impossible combination."""
    if name in OWN:
        return OWN[name](rng, n_layers)
    settings = SETTINGS[name](rng, n_layers) if name in SETTINGS else budget(rng)
    return STRATEGIES[name](**settings)
