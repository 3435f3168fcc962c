"""Tiny models on disk, the same model in vLLM and in transformers, and their comparison.

engine     a pruned vLLM engine, and the comparison of its answers with transformers'
reference  the answers of transformers with tokenprune, from a separate process
server     `tokenprune serve` in a separate process
family     what tests need to know about a family
families   all families
marks      how images and videos are written in prompts
stored     checkpoints of tiny models, and answers of those that transformers cannot load
store      stores them
minicpmv   what MiniCPM-V's checkpoints bring along
molmo      what Molmo 2's checkpoints bring along
mistral    prompts in Mistral's own format
drafts     draft models of speculative decoding
older      how older releases of transformers compute the same as vLLM
cpu        changes with which vLLM runs tiny models on a CPU
"""
