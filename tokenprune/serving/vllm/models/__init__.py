"""The architectures, one file per family: vLLM's own model with our selection."""
