"""Fixtures of the contract matrix."""

from collections.abc import Iterator
from typing import Any

import pytest
from contract.matrix import label_of
from helpers.contract.cells import EVERY
from helpers.contract.oracle import ERRORS


@pytest.fixture(autouse=True)
def cell(request: pytest.FixtureRequest, record_property: Any) -> Iterator[None]:
    """Record for `make matrix` which cell a test fills, and its largest difference from the oracle."""
    ERRORS.clear()
    cannot = False
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if "case" in parameters:
        label = label_of(request.node.name, parameters)
        cannot = parameters.get("mode", label) in EVERY[parameters["case"]].cannot
        record_property("cell", [parameters["case"], label, "cannot" if cannot else "passed"])
    yield
    record_property("error", 0.0 if cannot else max(ERRORS, default=0.0))
