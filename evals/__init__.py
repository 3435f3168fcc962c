"""Accuracy and speed of pruned models on VQA and grounding sets.

`tokenprune eval --help` measures accuracy, `tokenprune bench --help` time and memory.
"""

if __name__ != "tokenprune.evals":
    raise ImportError("import tokenprune.evals, not evals")
