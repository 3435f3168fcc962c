"""Tiny models of families that transformers cannot load as published.

Each is saved as published for vLLM and, in the folder `CONVERTED` inside, with the same weights in a form that
transformers or a class of the tests loads.
"""
