"""Fixtures of the tests with vLLM, whose environment does not need the other tests' model families."""

import helpers.served.engine  # noqa: F401  # isort: skip - before anything imports Triton, which it sets to interpret
from helpers.unchecked import unchecked as unchecked
