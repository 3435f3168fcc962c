"""KV caches of pruned prompts, kept across chat turns. Private.

pruned        a cache with a logical and a physical length
index         which token each slot holds
stage_slots   which slots the decoder layers of an in-LLM stage hold
fingerprints  recognises the tensors of pruned caches
refused       caches that an interrupted call left, or that were made from the tensors of pruned ones
"""
