"""Strategies that compare the frames of a video."""
