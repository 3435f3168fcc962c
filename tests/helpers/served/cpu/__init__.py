"""Replacements for kernels that vLLM has only on GPUs or only in bfloat16."""
