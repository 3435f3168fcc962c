"""Pruned models in serving engines."""
