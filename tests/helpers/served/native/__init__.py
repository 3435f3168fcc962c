"""Tiny models of families that vLLM and transformers load from the same files."""
