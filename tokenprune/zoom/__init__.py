"""Coarse-to-fine search in images much larger than a model's input.

search     the search, and what it finds
pyramid    the image as levels of square tiles
attention  where in the images the question attends
"""

from tokenprune.zoom.search import Look, Zoom

__all__ = ["Look", "Zoom"]
