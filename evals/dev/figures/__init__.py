"""Figures of the documentation.

adaptive      adaptive budgets against fixed ones
gap           position IDs and grounding
kv_precision  keep ratios against the precision of the KV cache
large_image   an image far larger than a model's input
typical       the rule that chooses the example of the README's first image
"""
