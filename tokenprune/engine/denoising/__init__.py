"""Models that denoise: a second stack of layers reads the pruned cache at every step. Private.

canvas      the steps of a block diffusion model
policy      the steps of a robot policy
step_cache  the part of a cache that one step reads
"""
