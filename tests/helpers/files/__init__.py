"""Datasets and result files in published formats, written for tests."""
