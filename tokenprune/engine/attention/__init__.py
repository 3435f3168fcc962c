"""What attention must know of pruned tokens, besides masks.

packed_sequences        gaps in position IDs under FlashAttention, and sequences packed in one row
proportional_attention  attention to merged tokens in proportion to their size
"""
