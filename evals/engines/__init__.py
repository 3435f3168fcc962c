"""Engines that answer questions instead of the model in this process: vLLM's, here or behind a URL."""
