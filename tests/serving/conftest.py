"""Fixtures of the tests that run with vLLM, whose environment has no use for the model families of all the others."""

import helpers.served.engine  # noqa: F401  # isort: skip - before anything imports Triton, which it sets to interpret
from helpers.unchecked import unchecked as unchecked
