"""Every strategy, one file each. To add one: a file, an import and a line in STRATEGIES; tests and evals follow."""

from tokenprune.strategies.average_pooling import AveragePooling
from tokenprune.strategies.background_pruning import BackgroundPruning
from tokenprune.strategies.cdpruner import CDPruner
from tokenprune.strategies.divprune import DivPrune
from tokenprune.strategies.fopru import FoPru
from tokenprune.strategies.grid import Grid
from tokenprune.strategies.prumerge import PruMerge
from tokenprune.strategies.random import Random
from tokenprune.strategies.vflowopt import VFlowOpt
from tokenprune.strategies.visionzip import VisionZip
from tokenprune.strategies.vispruner import VisPruner
from tokenprune.strategy import Strategy

#: The classes that `patch(model, "name", ...)` knows. CDPruner needs an object with a text tower, so it has no name.
STRATEGIES: dict[str, type[Strategy]] = {
    "averagepooling": AveragePooling,
    "backgroundpruning": BackgroundPruning,
    "divprune": DivPrune,
    "fopru": FoPru,
    "grid": Grid,
    "prumerge": PruMerge,
    "random": Random,
    "vflowopt": VFlowOpt,
    "visionzip": VisionZip,
    "vispruner": VisPruner,
}

__all__ = [
    "STRATEGIES",
    "AveragePooling",
    "BackgroundPruning",
    "CDPruner",
    "DivPrune",
    "FoPru",
    "Grid",
    "PruMerge",
    "Random",
    "VFlowOpt",
    "VisPruner",
    "VisionZip",
]
