"""Strategies that do not look at the image, which every other strategy should beat."""
