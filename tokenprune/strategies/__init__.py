"""Every strategy, one file each. To add one: a file, an import and a line in STRATEGIES; tests and evals follow."""

from tokenprune.strategies.average_pooling import AveragePooling
from tokenprune.strategies.background_pruning import BackgroundPruning
from tokenprune.strategies.divprune import DivPrune
from tokenprune.strategies.fopru import FoPru
from tokenprune.strategies.grid import Grid
from tokenprune.strategies.random import Random
from tokenprune.strategies.vflowopt import VFlowOpt
from tokenprune.strategy import Strategy

#: The classes that `patch(model, "name", ...)` knows.
STRATEGIES: dict[str, type[Strategy]] = {
    "averagepooling": AveragePooling,
    "backgroundpruning": BackgroundPruning,
    "divprune": DivPrune,
    "fopru": FoPru,
    "grid": Grid,
    "random": Random,
    "vflowopt": VFlowOpt,
}

__all__ = ["STRATEGIES", "AveragePooling", "BackgroundPruning", "DivPrune", "FoPru", "Grid", "Random", "VFlowOpt"]
