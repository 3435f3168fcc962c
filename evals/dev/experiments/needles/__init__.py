"""Coarse-to-fine search for small things in large images."""
