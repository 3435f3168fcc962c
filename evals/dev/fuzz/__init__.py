"""Random tiny models, prompts, strategies and caches, against unpatched models that mask what pruning drops."""
