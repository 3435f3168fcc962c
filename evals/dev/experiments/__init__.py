"""Experiments whose results are stored under evals/results.

adapting      how much accuracy an adapter gains
decode_steps  what a patch adds to a decode step
growth        time and memory of a prefill as images grow
ideals        strategies against their ideals, on models of three shapes
kills         runs that are killed and resumed
narrow        models so narrow that a forward is almost only Python
selection     the time of selection alone
serving       time and throughput in vLLM
videos        time and memory of a prefill with a video
"""
