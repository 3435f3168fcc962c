"""Strategies that know nothing of the image: what any other has to beat."""
