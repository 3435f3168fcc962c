"""KV caches of pruned prompts, kept across chat turns. Private.

pruned       a cache with a logical and a physical length
index        which token each slot holds
stage_slots  which slots the decoder layers of an in-LLM stage hold
interrupted  caches left by an interrupted call
rebuilt      caches made from the tensors of pruned ones
"""
