"""Tables in which vLLM looks up an architecture by its name: ours are added next to what they replace, or refused."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from importlib import import_module
from typing import Any

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures.architecture import Architecture

#: Models that vLLM lets choose between answers (/v1/systemone, and in 0.33 /v1/decisions).
DECIDING = (
    "TokenPruneGemma4",
    "TokenPruneGemma4Unified",
    "TokenPruneLfm2VL",
    "TokenPruneQwen3_5",
    "TokenPruneQwen3_5Moe",
)
#: The module and name of each table, and which of our architectures belong in it.
TABLES = {
    ("vllm.parser.cohere_command", "MODEL_TO_TAG_STYLE"): ("TokenPruneCohere2Vision",),
    ("vllm.entrypoints.generate.structured_decisions.strategies", "READ_STRATEGIES"): DECIDING,  # in vLLM 0.32
    ("vllm.entrypoints.openai.decisions.strategies", "READ_STRATEGIES"): DECIDING,  # in vLLM 0.33
    ("vllm.config.engram", "_NGRAM_LAYER_FIELDS"): ("TokenPruneQwen4Exp",),  # embeddings in the host's memory
}
#: Models without a chat template, whose prompts vLLM renders in a mode of its own.
TOKENIZER_MODES = {"TokenPruneKimiK3": "kimi_k3"}
#: The file of a checkpoint with a head that scores answers, and the architecture that vLLM then uses.
HEAD = "joint_head_config.json"
WITH_HEAD = {"TokenPruneQwen3Omni": "ClefOmniForJointSchema", "TokenPruneQwen3_5": "ClefFlashForJointSchema"}


def check_head(architecture: Architecture, model_config: Any) -> None:
    """Raise UnsupportedError for a checkpoint that vLLM serves with a different head than its config says."""
    from vllm import ModelRegistry
    from vllm.transformers_utils.repo_utils import file_or_path_exists

    headed = WITH_HEAD.get(architecture.name)
    if headed not in ModelRegistry.get_supported_archs():
        return
    if file_or_path_exists(model_config.model, HEAD, model_config.revision):
        raise UnsupportedError(
            f"{model_config.model} has a {HEAD}, with which vLLM serves it as {headed}, and {architecture.name} has no "
            f"such head. Serve it without pruning."
        )


def set_tokenizer_mode(architecture: Architecture, model_config: Any) -> None:
    """Choose the mode that vLLM uses for the replaced model, unless the user has chosen one."""
    if architecture.name in TOKENIZER_MODES and model_config.tokenizer_mode == "auto":
        model_config.tokenizer_mode = TOKENIZER_MODES[architecture.name]


def enter_in_tables(architecture: Architecture) -> None:
    """Add an architecture of ours to each of vLLM's tables that has the one it replaces."""
    _share_breaks(architecture)
    for (module, name), ours in TABLES.items():
        if architecture.name not in ours:
            continue
        try:
            table = getattr(import_module(module), name)
        except ImportError:  # another release of vLLM, or the feature needs a package that is not installed
            continue
        if architecture.replaces in table:
            table[architecture.name] = table[architecture.replaces]


def _share_breaks(architecture: Architecture) -> None:
    """Give a model's CUDA graphs the breaks that vLLM gives the model it replaces, for kernels that a graph must not
    record."""
    from vllm.config import vllm

    broken = vllm.DEFAULT_BREAKABLE_CUDAGRAPH_ARCHITECTURES
    if architecture.replaces in broken:
        vllm.DEFAULT_BREAKABLE_CUDAGRAPH_ARCHITECTURES = broken | {architecture.name}
        vllm.default_breakable_cudagraph_architectures.cache_clear()
