"""Pruning before the layers of the vision tower, and between them."""
