"""KV caches of pruned prompts, kept across chat turns. Private.

pruned       a cache with a logical and a physical length
index        which token each slot holds
interrupted  caches left by an interrupted call
rebuilt      caches made from the tensors of pruned ones
"""
