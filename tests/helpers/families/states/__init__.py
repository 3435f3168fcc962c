"""Families whose language models have layers with a state."""
