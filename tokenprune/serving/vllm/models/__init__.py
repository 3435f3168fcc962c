"""The architectures, one file for each family: vLLM's own model with our selection."""
