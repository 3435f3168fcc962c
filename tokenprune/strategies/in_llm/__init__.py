"""Strategies that choose inside the language model, from what its first layers computed."""
