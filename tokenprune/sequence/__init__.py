"""The tokens of a prompt that are left after pruning, and their masks and position IDs."""
