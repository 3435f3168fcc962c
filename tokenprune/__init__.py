"""Reversible visual-token pruning for Hugging Face vision-language models.

    handle = tokenprune.patch(model, FoPru(keep_ratio=0.25))
    ...                  # generate, forward, pipelines: as before, but with fewer visual tokens
    handle.report        # which visual tokens were kept
    handle.remove()

Importing this package changes nothing and never loads transformers; `patch` changes one model instance. Public names
are loaded on first use, so that the command's help and shell completion do not wait for torch.

What is where:

strategies    which visual tokens are kept: published strategies, and our own
strategy      their base classes
tokens        what they read
selection     what they return, and budgets
patching      `patch`, `unpatch` and `probe`
engine        what makes a patched model work: start reading at engine/prefill.py
sequence      position IDs and attention masks after pruning
encoded       what is recorded of an encoded image, for the strategy
report        what `handle.report` holds
serving       the same inside vLLM
zoom          `Zoom`, which searches large images
retrieval     `patch_retrieval`, which merges embeddings of pages
prompts       prompts in a processor's chat template
entry_points  strategies, model adapters and vision towers of other installed packages
errors        exception classes, and parts of messages
checks        checks of settings
text_files    text and JSON files, with errors that name file and line

`adapters`, the model families, and `evals`, with the command `tokenprune`, are folders beside this one.
"""

# ruff: noqa: I001 (one statement per module)

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from tokenprune.adapters import GenericAdapter as GenericAdapter
    from tokenprune.evals.adapt.adapt import adapt as adapt
    from tokenprune.evals.tune.tune import tune as tune
    from tokenprune.errors import (
        DataError as DataError,
        PruningError as PruningError,
        SettingError as SettingError,
        TokenPruneError as TokenPruneError,
        UnsupportedError as UnsupportedError,
    )
    from tokenprune.patching import (
        PatchHandle as PatchHandle,
        Probe as Probe,
        patch as patch,
        probe as probe,
        unpatch as unpatch,
    )
    from tokenprune.report import ImageReport as ImageReport, Report as Report
    from tokenprune.retrieval import RetrievalHandle as RetrievalHandle, patch_retrieval as patch_retrieval
    from tokenprune.strategies import (
        DART as DART,
        EVS as EVS,
        PAR as PAR,
        SCOPE as SCOPE,
        STRATEGIES as STRATEGIES,
        VCAST as VCAST,
        AdaToken as AdaToken,
        AttentionMass as AttentionMass,
        AveragePooling as AveragePooling,
        BackgroundPruning as BackgroundPruning,
        CDPruner as CDPruner,
        Compose as Compose,
        DivPrune as DivPrune,
        DyCokeTTM as DyCokeTTM,
        EfficientVLA as EfficientVLA,
        FastV as FastV,
        FastVID as FastVID,
        FlowCut as FlowCut,
        FoPru as FoPru,
        Grid as Grid,
        HoloV as HoloV,
        IVCPrune as IVCPrune,
        LateStep as LateStep,
        Mosaic as Mosaic,
        Nuwa as Nuwa,
        PixelPrune as PixelPrune,
        PruMerge as PruMerge,
        PruneSID as PruneSID,
        PyramidDrop as PyramidDrop,
        Random as Random,
        SparseVLM as SparseVLM,
        ToMe as ToMe,
        VFlowOpt as VFlowOpt,
        VidCom2 as VidCom2,
        VisionZip as VisionZip,
        VisPruner as VisPruner,
        register_strategy as register_strategy,
    )
    from tokenprune.selection import Selection as Selection
    from tokenprune.strategy import ScoreStrategy as ScoreStrategy, Strategy as Strategy
    from tokenprune.zoom import Look as Look, Zoom as Zoom

#: Public name -> the module that defines it.
_MODULES = {
    "AdaToken": "tokenprune.strategies",
    "AttentionMass": "tokenprune.strategies",
    "AveragePooling": "tokenprune.strategies",
    "BackgroundPruning": "tokenprune.strategies",
    "CDPruner": "tokenprune.strategies",
    "Compose": "tokenprune.strategies",
    "DART": "tokenprune.strategies",
    "DataError": "tokenprune.errors",
    "DivPrune": "tokenprune.strategies",
    "DyCokeTTM": "tokenprune.strategies",
    "EVS": "tokenprune.strategies",
    "EfficientVLA": "tokenprune.strategies",
    "FastV": "tokenprune.strategies",
    "FastVID": "tokenprune.strategies",
    "FlowCut": "tokenprune.strategies",
    "FoPru": "tokenprune.strategies",
    "GenericAdapter": "tokenprune.adapters",
    "Grid": "tokenprune.strategies",
    "HoloV": "tokenprune.strategies",
    "IVCPrune": "tokenprune.strategies",
    "ImageReport": "tokenprune.report",
    "LateStep": "tokenprune.strategies",
    "Look": "tokenprune.zoom",
    "Mosaic": "tokenprune.strategies",
    "Nuwa": "tokenprune.strategies",
    "PAR": "tokenprune.strategies",
    "PatchHandle": "tokenprune.patching",
    "PixelPrune": "tokenprune.strategies",
    "Probe": "tokenprune.patching",
    "PruMerge": "tokenprune.strategies",
    "PruneSID": "tokenprune.strategies",
    "PruningError": "tokenprune.errors",
    "PyramidDrop": "tokenprune.strategies",
    "Random": "tokenprune.strategies",
    "Report": "tokenprune.report",
    "RetrievalHandle": "tokenprune.retrieval",
    "SCOPE": "tokenprune.strategies",
    "STRATEGIES": "tokenprune.strategies",
    "ScoreStrategy": "tokenprune.strategy",
    "Selection": "tokenprune.selection",
    "SettingError": "tokenprune.errors",
    "SparseVLM": "tokenprune.strategies",
    "Strategy": "tokenprune.strategy",
    "ToMe": "tokenprune.strategies",
    "TokenPruneError": "tokenprune.errors",
    "UnsupportedError": "tokenprune.errors",
    "VCAST": "tokenprune.strategies",
    "VFlowOpt": "tokenprune.strategies",
    "VidCom2": "tokenprune.strategies",
    "VisPruner": "tokenprune.strategies",
    "VisionZip": "tokenprune.strategies",
    "Zoom": "tokenprune.zoom",
    "patch": "tokenprune.patching",
    "patch_retrieval": "tokenprune.retrieval",
    "probe": "tokenprune.patching",
    "register_strategy": "tokenprune.strategies",
    "unpatch": "tokenprune.patching",
}

#: Functions of the evals, each with its module and the extra that it needs. `import *` leaves them out.
_TOOLS = {"adapt": ("tokenprune.evals.adapt.adapt", "adapt"), "tune": ("tokenprune.evals.tune.tune", "optimize")}

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # with it, a type checker would accept every misspelt name

    def __getattr__(name: str) -> Any:
        if name in _TOOLS:
            home, extra = _TOOLS[name]
            try:
                return getattr(import_module(home), name)
            except ModuleNotFoundError as error:
                sentence = import_module("tokenprune.errors").missing_package(error, extra, f"tokenprune.{name}")
                if sentence is None:
                    raise
                raise ModuleNotFoundError(sentence, name=error.name) from error
        if name not in _MODULES:
            here = sys.modules[__name__]  # from which Python suggests the name that was meant
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=here)
        globals()[name] = value = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_TOOLS})
