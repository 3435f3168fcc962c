"""Broken adapters, and exports of a patched model."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import pytest
import torch
from helpers.tiny import prompt, tiny_llava
from transformers import LlavaForConditionalGeneration

import tokenprune
from tokenprune import FoPru, Grid, PruningError, Random, SettingError, UnsupportedError
from tokenprune.adapters import ADAPTERS, ModelAdapter, adapter_for, register_adapter
from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.engine.pruner import Pruner


class OddLlava(LlavaForConditionalGeneration):
    """A class of another package."""


@pytest.fixture
def odd() -> Any:
    model = tiny_llava("clip")
    model.__class__ = OddLlava
    yield model
    ADAPTERS.pop("OddLlava", None)


def test_subclasses_and_adapters_of_other_packages(odd: Any) -> None:
    assert type(adapter_for(odd)) is LlavaAdapter  # inherited

    @register_adapter("OddLlava")
    class OddAdapter(LlavaAdapter):
        pass

    assert type(adapter_for(odd)) is OddAdapter
    with torch.no_grad(), tokenprune.patch(odd, FoPru()) as handle:
        odd(**prompt([1]))
    assert handle.report.n_kept == 9


def test_an_adapter_that_names_the_wrong_modules_prunes_loudly(odd: Any) -> None:
    """With a newer transformers that calls other modules, the model must not silently answer unpruned."""

    @register_adapter("OddLlava")
    class WrongLanguageModel(LlavaAdapter):
        @property
        def language_model(self) -> torch.nn.Module:
            return self.model.lm_head  # type: ignore[return-value]

        @property
        def layers(self) -> torch.nn.ModuleList:
            return self.core.language_model.layers

    with torch.no_grad(), tokenprune.patch(odd, Grid()), pytest.raises(PruningError, match="nothing was pruned"):
        odd.model(**prompt([1]))

    others = {"queries": torch.nn.Linear(1, 1), "keys": torch.nn.Linear(1, 1)}

    @register_adapter("OddLlava")
    class WrongProjections(LlavaAdapter):
        def capture_points(self, layer: int | None) -> list[CapturePoints]:
            return [CapturePoints(self.layers[0], others)]

    calling_it = pytest.raises(PruningError, match="names modules that the vision tower does not call")
    with torch.no_grad(), tokenprune.patch(odd, FoPru()), calling_it:
        odd(**prompt([1]))


def test_what_cannot_be_registered() -> None:
    for names in ((), (LlavaAdapter,)):  # as if written without parentheses
        with pytest.raises(SettingError, match=r'names of transformers classes.*Write @register_adapter\("MyLlava'):
            unwrap(register_adapter)(*names)  # without the tests' type checks, which would refuse it first
    with pytest.raises(SettingError, match="Grid'> is not a subclass of ModelAdapter"):
        unwrap(register_adapter("OddLlava"))(Grid)
    assert "OddLlava" not in ADAPTERS


def test_a_tower_that_names_its_pixels_in_another_way(odd: Any) -> None:
    """A tower of another package may; the engine uses the argument names of the tower's call."""

    @register_adapter("OddLlava")
    class Renaming(LlavaAdapter):
        def tile_pixels(self, arguments: Any) -> Any:
            return ModelAdapter.tile_pixels(self, {"images": arguments["pixel_values"], "mask": None})

    message = (
        r"^Renaming does not know which .* called with images, mask\. Override tile_pixels\(self, arguments\) in Re"
    )
    with torch.no_grad(), tokenprune.patch(odd, Random()), pytest.raises(PruningError, match=message):
        odd(**prompt([1]))


def test_a_method_that_transformers_does_not_have_any_more(odd: Any) -> None:
    @register_adapter("OddLlava")
    class Renamed(LlavaAdapter):
        @property
        def modalities(self) -> tuple[Modality, ...]:
            return (Modality("image", "encode_images", "pixel_values", self.config.image_token_id),)

    with pytest.raises(UnsupportedError, match=r"LlavaModel has no encode_images\(\).*Report it"):
        tokenprune.patch(odd, Grid())
    assert Pruner.on(odd) is None


def test_an_adapter_that_raises_while_hooks_go_on(odd: Any) -> None:
    @register_adapter("OddLlava")
    class Raises(LlavaAdapter):
        def capture_points(self, layer: int | None) -> list[CapturePoints]:
            assert Pruner.on(self.model) is not None  # so the first hooks exist by now
            raise ZeroDivisionError("in the adapter")

    def hooks() -> list[int]:
        return [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in odd.modules()]

    before = hooks()
    with pytest.raises(ZeroDivisionError):
        tokenprune.patch(odd, FoPru())
    assert hooks() == before
    with tokenprune.patch(odd, Grid(keep=4)) as handle:  # an earlier patch is restored
        with pytest.raises(ZeroDivisionError):
            tokenprune.patch(odd, FoPru())
        assert handle.installed
    assert hooks() == before


# Exports are refused: a recorded graph would always keep the example's visual tokens.


def export(model: Any, inputs: dict[str, Any]) -> Any:
    return torch.export.export(model, (), {**inputs, "use_cache": False}, strict=False)


def trace(model: Any, inputs: dict[str, Any]) -> Any:
    return torch.jit.trace(model, example_kwarg_inputs=inputs, strict=False, check_trace=False)


@pytest.mark.filterwarnings("ignore")  # torch's deprecation warnings
@pytest.mark.parametrize("record", [export, trace])
@pytest.mark.parametrize("part", ["", "model"])
def test_a_patched_model_is_not_recorded(llava: Any, record: Callable[..., Any], part: str) -> None:
    """Nor is its base model. Afterwards, the patch works as before."""
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep=4)) as handle:
        with pytest.raises(UnsupportedError, match=r"neither exported nor traced.* Remove the patch first"):
            record(llava.get_submodule(part), inputs)
        llava(**inputs)
    assert handle.report.n_kept == 4
