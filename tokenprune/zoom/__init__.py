"""Coarse-to-fine search in images that are much larger than a model's input."""
