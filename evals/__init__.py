"""Accuracy and speed of pruned models on VQA and grounding benchmarks.

`evaluate` runs benchmarks from Python. On the command line, `tokenprune eval --help` measures accuracy and
`tokenprune bench --help` measures time and memory.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenprune.evals.run.evaluate import evaluate as evaluate

if __name__ != "tokenprune.evals":
    raise ImportError("import tokenprune.evals, not evals")

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    """Load `evaluate`, and with it transformers and the libraries of the extra `evals`, when it is first used."""
    if name != "evaluate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tokenprune.evals.run.evaluate import evaluate

    globals()[name] = evaluate
    return evaluate
