"""Strategies that select before the language model, from what the vision tower computed."""
