"""Models that denoise: a second stack of layers reads the pruned cache at every step. Private.

plan        where a strategy acts between these steps, checked against the model
canvas      the steps of a block diffusion model
policy      the steps of a robot policy
step_cache  the part of a cache that one step reads
"""
