"""Pruned models in other evaluation harnesses.

model     conversations in, answers and their costs out
lmms      ... as a model of lmms-eval
manifest  registers it with lmms-eval
"""
