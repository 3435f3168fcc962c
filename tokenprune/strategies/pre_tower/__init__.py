"""Strategies that drop tokens before the vision tower."""
