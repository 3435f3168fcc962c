"""Vision towers as vLLM builds them.

from_config  the tower of a model's config, and its layers
radio        the tower of Nemotron models
"""
