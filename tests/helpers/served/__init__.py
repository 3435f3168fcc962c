"""Tiny models on disk, the same model in vLLM and in transformers, and their comparison."""
