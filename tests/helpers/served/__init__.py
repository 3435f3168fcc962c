"""Tiny models on disk, the same model in vLLM and in transformers, and their comparison.

engine     a pruned vLLM engine, and the comparison of its answers with transformers'
reference  the answers of transformers with tokenprune, from a separate process
server     `tokenprune serve` in a separate process
family     what tests need to know about a family
families   all families
models     LLaVA, Qwen-VL and InternVL, and what all tiny models share
drafts     draft models of speculative decoding
native     families that vLLM and transformers load from the same files
converted  families that transformers cannot load as published
cpu        replacements for kernels that vLLM has only on GPUs
"""
