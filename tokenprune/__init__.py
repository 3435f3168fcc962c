"""Reversible visual-token pruning for Hugging Face vision-language models.

    handle = tokenprune.patch(model, FoPru(keep_ratio=0.25))
    ...                  # generate, forward, pipelines: as before, with fewer visual tokens
    handle.report        # which visual tokens were kept
    handle.remove()

Importing this package changes nothing and loads no transformers; `patch` does, on one model instance.
"""

from tokenprune.errors import PruningError, SettingError, TokenPruneError, UnsupportedError
from tokenprune.patching import PatchHandle, patch, unpatch
from tokenprune.report import ImageReport, Report, StageReport
from tokenprune.retrieval.patching import RetrievalHandle, patch_retrieval
from tokenprune.strategies import (
    PAR,
    STRATEGIES,
    AdaToken,
    AveragePooling,
    BackgroundPruning,
    CDPruner,
    DivPrune,
    EfficientVLA,
    FastV,
    FlowCut,
    FoPru,
    Grid,
    PruMerge,
    PyramidDrop,
    Random,
    SparseVLM,
    VFlowOpt,
    VisionZip,
    VisPruner,
)
from tokenprune.strategy import ScoreStrategy, Selection, Stage, Strategy
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.visual import LeftInTower, StageTokens, TowerTokens, VisualTokens
from tokenprune.zoom.search import Look, Zoom

__version__ = "0.1.0"

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
    "ImageReport",
    "Layout",
    "LeftInTower",
    "Look",
    "PatchHandle",
    "PruMerge",
    "PruningError",
    "PyramidDrop",
    "Random",
    "Report",
    "RetrievalHandle",
    "ScoreStrategy",
    "Selection",
    "SettingError",
    "SparseVLM",
    "Stage",
    "StageReport",
    "StageTokens",
    "Strategy",
    "TokenPruneError",
    "TowerTokens",
    "UnsupportedError",
    "VFlowOpt",
    "VisPruner",
    "VisionAttention",
    "VisionZip",
    "VisualTokens",
    "Zoom",
    "patch",
    "patch_retrieval",
    "unpatch",
]
