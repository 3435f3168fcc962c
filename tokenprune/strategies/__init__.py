"""All strategies, one file each, and the registry of their names.

To add one: a file, an import and a name in `__all__`; tests, evals and commands then include it. See README.md.
"""

from tokenprune.strategies.adatoken import AdaToken
from tokenprune.strategies.attention_mass import AttentionMass
from tokenprune.strategies.average_pooling import AveragePooling
from tokenprune.strategies.background_pruning import BackgroundPruning
from tokenprune.strategies.cdpruner import CDPruner
from tokenprune.strategies.dart import DART
from tokenprune.strategies.divprune import DivPrune
from tokenprune.strategies.efficientvla import EfficientVLA
from tokenprune.strategies.fastv import FastV
from tokenprune.strategies.flowcut import FlowCut
from tokenprune.strategies.fopru import FoPru
from tokenprune.strategies.grid import Grid
from tokenprune.strategies.holov import HoloV
from tokenprune.strategies.mosaic import Mosaic
from tokenprune.strategies.nuwa import Nuwa
from tokenprune.strategies.par import PAR
from tokenprune.strategies.parsing import parse
from tokenprune.strategies.prumerge import PruMerge
from tokenprune.strategies.pyramiddrop import PyramidDrop
from tokenprune.strategies.random import Random
from tokenprune.strategies.registry import STRATEGIES, make, register_strategy
from tokenprune.strategies.scope import SCOPE
from tokenprune.strategies.sparsevlm import SparseVLM
from tokenprune.strategies.vflowopt import VFlowOpt
from tokenprune.strategies.visionzip import VisionZip
from tokenprune.strategies.vispruner import VisPruner

__all__ = [
    "DART",
    "PAR",
    "SCOPE",
    "STRATEGIES",
    "AdaToken",
    "AttentionMass",
    "AveragePooling",
    "BackgroundPruning",
    "CDPruner",
    "DivPrune",
    "EfficientVLA",
    "FastV",
    "FlowCut",
    "FoPru",
    "Grid",
    "HoloV",
    "Mosaic",
    "Nuwa",
    "PruMerge",
    "PyramidDrop",
    "Random",
    "SparseVLM",
    "VFlowOpt",
    "VisPruner",
    "VisionZip",
    "make",
    "parse",
    "register_strategy",
]
