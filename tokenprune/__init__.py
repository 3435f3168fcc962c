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
user_classes  classes of the user's own modules
errors        exception classes, and parts of messages
checks        checks of settings
text_files    text and JSON files, with errors that name file and line

`adapters`, the model families, and `evals`, with the command `tokenprune`, are folders beside this one.
"""

# ruff: noqa: I001 (one statement per module)

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

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
    from tokenprune.strategies import *  # noqa: F403
    from tokenprune.selection import Selection as Selection
    from tokenprune.strategy import ScoreStrategy as ScoreStrategy, Strategy as Strategy
    from tokenprune.zoom import Look as Look, Zoom as Zoom

#: Public name -> the module that defines it. Strategies are not listed: they are all names in `strategies.__all__`.
_MODULES = {
    "DataError": "tokenprune.errors",
    "GenericAdapter": "tokenprune.adapters",
    "ImageReport": "tokenprune.report",
    "Look": "tokenprune.zoom",
    "PatchHandle": "tokenprune.patching",
    "Probe": "tokenprune.patching",
    "PruningError": "tokenprune.errors",
    "Report": "tokenprune.report",
    "RetrievalHandle": "tokenprune.retrieval",
    "STRATEGIES": "tokenprune.strategies",
    "ScoreStrategy": "tokenprune.strategy",
    "Selection": "tokenprune.selection",
    "SettingError": "tokenprune.errors",
    "Strategy": "tokenprune.strategy",
    "TokenPruneError": "tokenprune.errors",
    "UnsupportedError": "tokenprune.errors",
    "Zoom": "tokenprune.zoom",
    "patch": "tokenprune.patching",
    "patch_retrieval": "tokenprune.retrieval",
    "probe": "tokenprune.patching",
    "register_strategy": "tokenprune.strategies",
    "unpatch": "tokenprune.patching",
}

#: Functions of the evals, each with its module and the extra that it needs. `import *` leaves them out.
_TOOLS = {"adapt": ("tokenprune.evals.adapt.adapt", "adapt"), "tune": ("tokenprune.evals.tune.tune", "optimize")}


def _public() -> list[str]:
    return sorted({*_MODULES, *import_module("tokenprune.strategies").__all__})


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
        if name == "__all__":
            return _public()
        # Modules, which `from tokenprune import ...` asks for in vain at first, must not load torch.
        if name not in _MODULES and not (name[0].isupper() and name in _public()):
            here = sys.modules[__name__]  # from which Python suggests the name that was meant
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=here)
        globals()[name] = value = getattr(import_module(_MODULES.get(name, "tokenprune.strategies")), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_public(), *_TOOLS})
