"""Continuous batching, which transformers offers for text only: it takes token IDs and no images."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
import torch
from helpers.tiny import prompt

import tokenprune
from tokenprune import Grid, UnsupportedError


def test_continuous_batching_is_refused(llava: Any) -> None:
    inputs = prompt([1])
    rows = inputs["input_ids"].tolist()
    with tokenprune.patch(llava, Grid()) as handle:
        with pytest.raises(UnsupportedError, match=r"batching \(generate_batch\).*Call generate with a padded"):
            llava.generate_batch(rows, max_new_tokens=2)
        with pytest.raises(UnsupportedError, match="continuous batching"):
            llava.init_continuous_batching()
        with torch.no_grad():
            llava.generate(**inputs, max_new_tokens=2)
        assert handle.report.n_kept == 9
    assert "init_continuous_batching" not in vars(llava)


def test_transformers_itself_takes_no_images(llava: Any) -> None:
    """If this fails, pruning can be supported here."""
    assert not {"pixel_values", "mm_encoder_outputs"} & signature(llava.generate_batch).parameters.keys()
