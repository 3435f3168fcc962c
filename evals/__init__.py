"""Accuracy and speed of pruned models on VQA and grounding sets.

`python -m tokenprune.evals --help` measures accuracy, `python -m tokenprune.evals.bench --help` prefill time.
"""

if __name__ != "tokenprune.evals":
    raise ImportError("import tokenprune.evals, not evals")
