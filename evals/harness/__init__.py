"""Pruned models in other evaluation harnesses.

model     conversations in, answers and their costs out
lmms      the same as a model of lmms-eval
manifest  where lmms-eval finds it
"""
