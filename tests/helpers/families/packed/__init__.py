"""Families whose images and videos come as one row of patches, with a grid for each."""
