"""What is declared of a model is true of its classes."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from importlib import import_module
from operator import attrgetter
from types import SimpleNamespace

import pytest
from helpers.served.engine import needs_vllm

from tokenprune import DivPrune
from tokenprune.adapters.towers import Tower
from tokenprune.evals.dev.tables.served import MARKS, rows
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import reason_of_lack, releases_with
from tokenprune.serving.vllm.startup.refusals import needs_image
from tokenprune.serving.vllm.towers.from_config import tower_of_config

#: Models that vLLM also has in releases in which they are not pruned: no transformers that 0.33 takes has the config of
#: MiniCPM-OCR, and 0.34's answers of MiniMax M3 were not those of transformers.
NARROWED = {"TokenPruneMiniCPMOcr", "TokenPruneMiniMaxM3"}


@needs_vllm
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_classes_say_too(name: str) -> None:
    """A model with markers cannot be started without its language model; the page lists whose videos are pruned, and
    `tokenprune serve --adapter` refuses the others."""
    if reason := reason_of_lack(ARCHITECTURES[name]):
        pytest.skip(reason)
    module, kind = ARCHITECTURES[name].home.split(":")
    model = getattr(import_module(f"tokenprune.serving.vllm.models.{module}"), kind)
    one, processor = ARCHITECTURES[name], model._processor_factory.processor
    assert processor.has_markers == one.has_markers
    prunes = {"video", "vision_chunk"} & {*processor.pruned} & {*model.pruned}
    assert bool(prunes) == one.prunes_videos
    assert getattr(model, "supports_lora", False) == one.takes_adapters


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


def test_records_of_a_row() -> None:
    """In the table of served models, those without a title have the marks and releases of the first."""
    for first, *others in rows().values():
        for one in others:
            for of in (attrgetter(*MARKS), releases_with):
                assert of(one) == of(first), one.name


@pytest.mark.parametrize("name", [name for name, one in ARCHITECTURES.items() if one.tower])
def test_towers_exist(name: str) -> None:
    one = ARCHITECTURES[name]
    vision = SimpleNamespace(args={"model": "vit_base_patch16_224"}, model_type=None)
    config = SimpleNamespace(model_type=one.tower_type or one.model_type, vision_config=vision, architectures=[])
    assert isinstance(tower_of_config(config), Tower)
