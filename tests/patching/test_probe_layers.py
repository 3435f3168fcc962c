"""How to tell a probe which decoder layers to read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from helpers.tiny import prompt, tiny_llava

import tokenprune


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "layers", [(0, 1), {0, 1}, range(2), iter([0, 1]), np.arange(2)], ids=lambda one: type(one).__name__
)
def test_anything_that_names_layers(layers: Iterable[int]) -> None:
    """Also iterables that can be read only once or have no truth value."""
    with tokenprune.probe(tiny_llava(), decoder_layers=layers) as seen:
        (image,) = seen.run(**prompt([1]))
    assert sorted(image.text_attention) == [0, 1]
