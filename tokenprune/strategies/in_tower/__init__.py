"""Strategies that drop tokens inside the vision tower."""
