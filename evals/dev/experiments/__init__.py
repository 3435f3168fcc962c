"""Experiments whose results are stored under evals/results.

serving  time and throughput in vLLM
"""
