"""Experiments whose results are stored under evals/results."""
