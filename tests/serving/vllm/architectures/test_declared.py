"""What is declared of a model is true of its classes."""

from __future__ import annotations

from importlib import import_module

import pytest
from helpers.served.engine import needs_vllm

from tokenprune import DivPrune
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.startup.refusals import needs_image


@needs_vllm
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_markers(name: str) -> None:
    """A model that has some cannot be started without its language model."""
    module, kind = ARCHITECTURES[name].home.split(":")
    model = getattr(import_module(f"tokenprune.serving.vllm.models.{module}"), kind)
    assert model._processor_factory.processor.has_markers == ARCHITECTURES[name].has_markers


@pytest.mark.parametrize("name", ["TokenPruneStep3p7", "TokenPruneStepVL"])
def test_features_that_do_not_say_where_they_belong(name: str) -> None:
    """`encoded_images` of these models reads the sizes of an image and of its crops."""
    assert (
        needs_image(ARCHITECTURES[name], DivPrune())
        == f"{name} reads from the pixels where in the image a visual token is"
    )
