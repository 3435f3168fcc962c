"""Accuracy and speed of pruned models on VQA and grounding sets.

`tokenprune eval --help` measures accuracy, `python -m tokenprune.evals.bench --help` prefill time.
"""

if __name__ != "tokenprune.evals":
    raise ImportError("import tokenprune.evals, not evals")
