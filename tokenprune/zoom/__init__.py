"""Coarse-to-fine search in images that are much larger than a model's input."""

from tokenprune.zoom.search import Look, Zoom

__all__ = ["Look", "Zoom"]
