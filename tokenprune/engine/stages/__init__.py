"""Pruning between decoder layers."""
