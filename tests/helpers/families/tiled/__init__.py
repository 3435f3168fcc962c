"""Families whose images are tensors of square tiles, and which share adapters or towers with other families."""
