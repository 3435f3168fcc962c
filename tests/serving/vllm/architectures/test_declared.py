"""What is declared of a model is true of its classes."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from importlib import import_module

import pytest
from helpers.served.engine import needs_vllm

from tokenprune import DivPrune
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import reason_of_lack
from tokenprune.serving.vllm.startup.refusals import needs_image

#: Models that vLLM also has in releases in which they are not pruned: no transformers that 0.33 takes has the config of
#: MiniCPM-OCR, and 0.34's answers of MiniMax M3 were not those of transformers.
NARROWED = {"TokenPruneMiniCPMOcr", "TokenPruneMiniMaxM3"}


@needs_vllm
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_markers(name: str) -> None:
    """A model that has some cannot be started without its language model."""
    if reason := reason_of_lack(ARCHITECTURES[name]):
        pytest.skip(reason)
    module, kind = ARCHITECTURES[name].home.split(":")
    model = getattr(import_module(f"tokenprune.serving.vllm.models.{module}"), kind)
    assert model._processor_factory.processor.has_markers == ARCHITECTURES[name].has_markers


@needs_vllm
def test_releases() -> None:
    """This vLLM has exactly the models that are declared for its release, and some of `NARROWED`."""
    from vllm import ModelRegistry

    has = ModelRegistry.get_supported_archs()
    lacking = {name for name, one in ARCHITECTURES.items() if one.replaces not in has}
    declared = {name for name, one in ARCHITECTURES.items() if reason_of_lack(one)}
    assert lacking - NARROWED == declared - NARROWED


@pytest.mark.parametrize("name", ["TokenPruneStep3p7", "TokenPruneStepVL"])
def test_features_that_do_not_say_where_they_belong(name: str) -> None:
    """`encoded_images` of these models reads the sizes of an image and of its crops."""
    assert (
        needs_image(ARCHITECTURES[name], DivPrune())
        == f"{name} reads from the pixels where in the image a visual token is"
    )
