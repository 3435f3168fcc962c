"""Every strategy, one file each. To add one: a file, an import and a line in STRATEGIES; tests and evals follow."""

from tokenprune.strategies.adatoken import AdaToken
from tokenprune.strategies.average_pooling import AveragePooling
from tokenprune.strategies.background_pruning import BackgroundPruning
from tokenprune.strategies.cdpruner import CDPruner
from tokenprune.strategies.divprune import DivPrune
from tokenprune.strategies.efficientvla import EfficientVLA
from tokenprune.strategies.fastv import FastV
from tokenprune.strategies.flowcut import FlowCut
from tokenprune.strategies.fopru import FoPru
from tokenprune.strategies.grid import Grid
from tokenprune.strategies.par import PAR
from tokenprune.strategies.prumerge import PruMerge
from tokenprune.strategies.pyramiddrop import PyramidDrop
from tokenprune.strategies.random import Random
from tokenprune.strategies.sparsevlm import SparseVLM
from tokenprune.strategies.vflowopt import VFlowOpt
from tokenprune.strategies.visionzip import VisionZip
from tokenprune.strategies.vispruner import VisPruner
from tokenprune.strategy import Strategy

#: The classes that `patch(model, "name", ...)` knows. CDPruner needs an object with a text tower, so it has no name.
STRATEGIES: dict[str, type[Strategy]] = {
    "adatoken": AdaToken,
    "averagepooling": AveragePooling,
    "backgroundpruning": BackgroundPruning,
    "divprune": DivPrune,
    "efficientvla": EfficientVLA,
    "fastv": FastV,
    "flowcut": FlowCut,
    "fopru": FoPru,
    "grid": Grid,
    "par": PAR,
    "prumerge": PruMerge,
    "pyramiddrop": PyramidDrop,
    "random": Random,
    "sparsevlm": SparseVLM,
    "vflowopt": VFlowOpt,
    "visionzip": VisionZip,
    "vispruner": VisPruner,
}

__all__ = [
    "PAR",
    "STRATEGIES",
    "AdaToken",
    "AveragePooling",
    "BackgroundPruning",
    "CDPruner",
    "DivPrune",
    "EfficientVLA",
    "FastV",
    "FlowCut",
    "FoPru",
    "Grid",
    "PruMerge",
    "PyramidDrop",
    "Random",
    "SparseVLM",
    "VFlowOpt",
    "VisPruner",
    "VisionZip",
]
