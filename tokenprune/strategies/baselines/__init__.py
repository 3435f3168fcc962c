"""Strategies that select without regard to what the image shows; every other strategy should beat them."""
