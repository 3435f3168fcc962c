"""Accuracy and speed of pruned models on VQA and grounding benchmarks.

`evaluate` runs benchmarks from Python. On the command line, `tokenprune eval --help` measures accuracy and
`tokenprune bench --help` measures time and memory.

Commands:

cli       options and entry points: start reading here
run       `tokenprune eval`
report    `tokenprune report`
papers    `tokenprune paper`
explain   `tokenprune explain`
bench     `tokenprune bench`
tune      `tokenprune tune`
adapt     `tokenprune adapt`
search    `tokenprune optimize` and `layers`
actions   `tokenprune actions`
harness   lmms-eval and VLMEvalKit, which have their own commands

What commands share:

arguments  options of commands, which are also arguments of functions
defaults   their defaults
tasks     benchmarks: questions, prompts, metrics
reading   published file formats, images and videos
models    loading a model and prompting it
storage   answers and results on disk
boxes     boxes and their overlap
stats     confidence intervals

For maintainers, in no wheel:

dev       training, experiments, figures and tables for this repository
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
