"""Strategies that choose before the language model, from what the vision tower computed."""
