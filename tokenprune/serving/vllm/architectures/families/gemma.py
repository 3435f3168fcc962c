"""Gemma 3 and Gemma 4."""

from tokenprune.serving.vllm.architectures.architecture import Architecture

RECORDS = (
    # The two smallest are language models.
    Architecture(
        "TokenPruneGemma3", "gemma3", "gemma3",
        title="Gemma 3, Gemma 4", published=("google/gemma-3-4b-it",), other_names=(r"\S+/gemma-3-(270m|1b)",),
    ),
    Architecture(
        "TokenPruneGemma4", "gemma4", "gemma4", published=("google/gemma-4-E4B-it",),
        tower="families.gemma4:TOWER", padded=True, tables=("READ_STRATEGIES",),
    ),
    Architecture(
        "TokenPruneGemma4Unified", "gemma4_unified", "gemma4",
        title="Gemma 4 without a vision tower (`gemma4_unified`)", towerless=True, tables=("READ_STRATEGIES",),
    ),
)  # fmt: skip
