"""How many sequences fit into a device's memory."""

from __future__ import annotations

from tokenprune.evals.bench.figures import Memory


def test_the_largest_batch() -> None:
    memory = Memory.of(1000, {1: 110, 2: 210, 4: 410})
    assert memory.largest_batch(1711.0) == 7
    assert memory.largest_batch(1809.0) == 7
    assert memory.largest_batch(900.0) == 0
    assert Memory.of(1000, {4: 400}).largest_batch(1550.0) == 5
