"""All strategies, one file each in a folder for where they prune, and the registry of their names.

README.md is the guide to writing one; CONTRIBUTING.md lists the edits that add it here.

pre_tower  before the vision tower
in_tower   in the vision tower
pre_llm    before the language model
in_llm     inside the language model
video      before the language model, by comparing the frames of a video
baselines  selections that do not depend on what the image shows
compose    several strategies in sequence
registry   names, classes and settings
parsing    strategies as text: `fopru:mode=row`
settings   strategies in files
shared     helpers, shared or large
"""

from tokenprune.strategies.baselines.average_pooling import AveragePooling
from tokenprune.strategies.baselines.grid import Grid
from tokenprune.strategies.baselines.random import Random
from tokenprune.strategies.compose import Compose
from tokenprune.strategies.in_llm.adatoken import AdaToken
from tokenprune.strategies.in_llm.attention_mass import AttentionMass
from tokenprune.strategies.in_llm.dart import DART
from tokenprune.strategies.in_llm.efficientvla import EfficientVLA
from tokenprune.strategies.in_llm.fastv import FastV
from tokenprune.strategies.in_llm.ivcprune import IVCPrune
from tokenprune.strategies.in_llm.late_step import LateStep
from tokenprune.strategies.in_llm.par import PAR
from tokenprune.strategies.in_llm.pyramiddrop import PyramidDrop
from tokenprune.strategies.in_llm.sparsevlm import SparseVLM
from tokenprune.strategies.in_tower.flowcut import FlowCut
from tokenprune.strategies.in_tower.tome import ToMe
from tokenprune.strategies.parsing import parse as parse
from tokenprune.strategies.pre_llm.background_pruning import BackgroundPruning
from tokenprune.strategies.pre_llm.cdpruner import CDPruner
from tokenprune.strategies.pre_llm.divprune import DivPrune
from tokenprune.strategies.pre_llm.fopru import FoPru
from tokenprune.strategies.pre_llm.holov import HoloV
from tokenprune.strategies.pre_llm.mosaic import Mosaic
from tokenprune.strategies.pre_llm.nuwa import Nuwa
from tokenprune.strategies.pre_llm.prumerge import PruMerge
from tokenprune.strategies.pre_llm.prunesid import PruneSID
from tokenprune.strategies.pre_llm.scope import SCOPE
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.pre_llm.visionzip import VisionZip
from tokenprune.strategies.pre_llm.vispruner import VisPruner
from tokenprune.strategies.pre_tower.pixelprune import PixelPrune
from tokenprune.strategies.registry import STRATEGIES, register_strategy
from tokenprune.strategies.registry import make as make
from tokenprune.strategies.video.dycoke import DyCokeTTM
from tokenprune.strategies.video.evs import EVS
from tokenprune.strategies.video.fastvid import FastVID
from tokenprune.strategies.video.vcast import VCAST
from tokenprune.strategies.video.vidcom2 import VidCom2

__all__ = [
    "DART",
    "EVS",
    "PAR",
    "SCOPE",
    "STRATEGIES",
    "VCAST",
    "AdaToken",
    "AttentionMass",
    "AveragePooling",
    "BackgroundPruning",
    "CDPruner",
    "Compose",
    "DivPrune",
    "DyCokeTTM",
    "EfficientVLA",
    "FastV",
    "FastVID",
    "FlowCut",
    "FoPru",
    "Grid",
    "HoloV",
    "IVCPrune",
    "LateStep",
    "Mosaic",
    "Nuwa",
    "PixelPrune",
    "PruMerge",
    "PruneSID",
    "PyramidDrop",
    "Random",
    "SparseVLM",
    "ToMe",
    "VFlowOpt",
    "VidCom2",
    "VisPruner",
    "VisionZip",
    "register_strategy",
]
