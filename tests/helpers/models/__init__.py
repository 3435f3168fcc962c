"""Tiny models for one kind of test, with their prompts and strategies."""
