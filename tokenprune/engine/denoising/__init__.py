"""What happens to models that denoise: a second stack of layers reads the pruned cache, step by step. Private."""
