"""What is refused, or logged, when a server starts: before a request can fail.

refusals        models and strategies that cannot work
engine_options  engine options that cannot be combined with pruning
drafts          speculative decoding: which methods work, and features without offsets for draft heads
differences     where vLLM computes differently from transformers
"""
