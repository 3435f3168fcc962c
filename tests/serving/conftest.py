"""Fixtures of the tests that run with vLLM, whose environment has no use for the model families of all the others."""

from helpers.unchecked import unchecked as unchecked
