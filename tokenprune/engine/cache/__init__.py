"""KV caches of pruned prompts. Private.

pruned       a cache with a logical and a physical length
index        which token each slot holds
interrupted  caches that an interrupted call has left
rebuilt      caches made from the tensors of pruned ones
"""
