"""Strategies that select inside the language model, from what its first layers computed."""
