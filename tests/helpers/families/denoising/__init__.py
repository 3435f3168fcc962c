"""Families that denoise."""
