"""Experiments whose results are stored under evals/results.

adapting      how much accuracy an adapter gains
ideals        strategies against their ideals, on models of three shapes
serving       time and throughput in vLLM
"""
