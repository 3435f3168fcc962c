"""Computations that several strategies share."""
