# By `make tables`.

from tokenprune.strategies.baselines.average_pooling import AveragePooling as AveragePooling
from tokenprune.strategies.baselines.grid import Grid as Grid
from tokenprune.strategies.baselines.random import Random as Random
from tokenprune.strategies.compose import Compose as Compose
from tokenprune.strategies.in_llm.adatoken import AdaToken as AdaToken
from tokenprune.strategies.in_llm.attention_mass import AttentionMass as AttentionMass
from tokenprune.strategies.in_llm.dart import DART as DART
from tokenprune.strategies.in_llm.efficientvla import EfficientVLA as EfficientVLA
from tokenprune.strategies.in_llm.fastv import FastV as FastV
from tokenprune.strategies.in_llm.ivcprune import IVCPrune as IVCPrune
from tokenprune.strategies.in_llm.late_step import LateStep as LateStep
from tokenprune.strategies.in_llm.par import PAR as PAR
from tokenprune.strategies.in_llm.pyramiddrop import PyramidDrop as PyramidDrop
from tokenprune.strategies.in_llm.sparsevlm import SparseVLM as SparseVLM
from tokenprune.strategies.in_tower.flowcut import FlowCut as FlowCut
from tokenprune.strategies.in_tower.tome import ToMe as ToMe
from tokenprune.strategies.parsing import parse as parse
from tokenprune.strategies.pre_llm.background_pruning import BackgroundPruning as BackgroundPruning
from tokenprune.strategies.pre_llm.cdpruner import CDPruner as CDPruner
from tokenprune.strategies.pre_llm.divprune import DivPrune as DivPrune
from tokenprune.strategies.pre_llm.fopru import FoPru as FoPru
from tokenprune.strategies.pre_llm.hiprune import HiPrune as HiPrune
from tokenprune.strategies.pre_llm.holov import HoloV as HoloV
from tokenprune.strategies.pre_llm.mosaic import Mosaic as Mosaic
from tokenprune.strategies.pre_llm.nuwa import Nuwa as Nuwa
from tokenprune.strategies.pre_llm.prumerge import PruMerge as PruMerge
from tokenprune.strategies.pre_llm.prunesid import PruneSID as PruneSID
from tokenprune.strategies.pre_llm.scope import SCOPE as SCOPE
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt as VFlowOpt
from tokenprune.strategies.pre_llm.visionzip import VisionZip as VisionZip
from tokenprune.strategies.pre_llm.vispruner import VisPruner as VisPruner
from tokenprune.strategies.pre_tower.downsample import Downsample as Downsample
from tokenprune.strategies.pre_tower.pixelprune import PixelPrune as PixelPrune
from tokenprune.strategies.registry import STRATEGIES as STRATEGIES
from tokenprune.strategies.registry import make as make
from tokenprune.strategies.registry import register_strategy as register_strategy
from tokenprune.strategies.video.dycoke import DyCokeTTM as DyCokeTTM
from tokenprune.strategies.video.evs import EVS as EVS
from tokenprune.strategies.video.fastvid import FastVID as FastVID
from tokenprune.strategies.video.vcast import VCAST as VCAST
from tokenprune.strategies.video.vidcom2 import VidCom2 as VidCom2

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
    "Downsample",
    "DyCokeTTM",
    "EfficientVLA",
    "FastV",
    "FastVID",
    "FlowCut",
    "FoPru",
    "Grid",
    "HiPrune",
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
