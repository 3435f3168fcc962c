"""Aria."""

from tokenprune.serving.vllm.architectures.architecture import Architecture

RECORDS = (
    Architecture(
        "TokenPruneAria", "aria", "aria",
        title="Aria", published=("rhymes-ai/Aria",), gridless=True, takes_adapters=False,
    ),
)  # fmt: skip
