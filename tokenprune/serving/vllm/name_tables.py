"""Tables in which vLLM looks up an architecture by its name: ours are added next to what they replace, or refused."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures.architecture import Architecture
from tokenprune.serving.vllm.architectures.releases import tested

logger = logging.getLogger("vllm.tokenprune")


@dataclass(frozen=True)
class Table:
    """A table of vLLM's.

    name, modules: where it is; releases have it in different modules. feature: what does not work without it.
    """

    name: str
    modules: tuple[str, ...]
    feature: str


TABLES = (
    Table(
        "MODEL_TO_TAG_STYLE",
        ("vllm.parser.cohere_command",),
        "tool calls and JSON schemas",
    ),
    Table(
        "READ_STRATEGIES",
        ("vllm.entrypoints.generate.structured_decisions.strategies", "vllm.entrypoints.openai.decisions.strategies"),
        "choosing between answers (/v1/systemone, /v1/decisions)",
    ),
    Table("_NGRAM_LAYER_FIELDS", ("vllm.config.engram",), "embeddings of n-grams in host memory"),
)
#: The file of a checkpoint with a head that scores answers.
HEAD = "joint_head_config.json"


def check_head(architecture: Architecture, model_config: Any) -> None:
    """Raise UnsupportedError for a checkpoint that vLLM serves with a different head than its config says."""
    from vllm import ModelRegistry
    from vllm.transformers_utils.repo_utils import file_or_path_exists

    if architecture.headed not in ModelRegistry.get_supported_archs():
        return
    if file_or_path_exists(model_config.model, HEAD, model_config.revision):
        raise UnsupportedError(
            f"{model_config.model} has a {HEAD}, with which vLLM serves it as {architecture.headed}, and "
            f"{architecture.name} has no such head. Serve it without pruning."
        )


def set_tokenizer_mode(architecture: Architecture, model_config: Any) -> None:
    """Choose the mode that vLLM uses for the replaced model, unless the user has chosen one."""
    if architecture.tokenizer_mode is not None and model_config.tokenizer_mode == "auto":
        model_config.tokenizer_mode = architecture.tokenizer_mode


def enter_in_tables(architecture: Architecture) -> None:
    """Add an architecture of ours to each of vLLM's tables that has the one it replaces."""
    _share_breaks(architecture)
    for source in TABLES:
        table = entries_of(source) if source.name in architecture.tables else {}
        if architecture.replaces in table:
            table[architecture.name] = table[architecture.replaces]


@cache
def entries_of(table: Table) -> dict[str, Any]:
    """A table of vLLM's. Where it cannot be imported, an empty one, and a warning: the model is served without it."""
    problems: list[ImportError | AttributeError] = []
    for module in table.modules:
        try:
            return getattr(import_module(module), table.name)
        except (ImportError, AttributeError) as error:  # a missing package, or another release
            problems.append(error)
    needed = next(
        (problem for problem in problems if isinstance(problem, ModuleNotFoundError) and not _of_vllm(problem)), None
    )
    logger.warning(
        "%s will not work, because vLLM's %s cannot be imported (%s). To use this, install %s.",
        table.feature[0].upper() + table.feature[1:],
        table.name,
        needed or problems[0],
        f"the package {needed.name}" if needed else f"vLLM {tested('or')}",
    )
    return {}


def _of_vllm(error: ModuleNotFoundError) -> bool:
    return (error.name or "").partition(".")[0] == "vllm"


def _share_breaks(architecture: Architecture) -> None:
    """Give a model's CUDA graphs the breaks that vLLM gives the model it replaces, for kernels that a graph must not
    record."""
    from vllm.config import vllm

    if architecture.replaces in vllm.default_breakable_cudagraph_architectures():  # of this kind of GPU
        vllm.DEFAULT_BREAKABLE_CUDAGRAPH_ARCHITECTURES |= {architecture.name}
        vllm.default_breakable_cudagraph_architectures.cache_clear()
