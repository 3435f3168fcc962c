"""accelerate's hooks, which `device_map` uses to spread a model over devices: here the CPU and a disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from accelerate.hooks import remove_hook_from_submodules
from engine.modes.test_training import Staged
from engine.stages.test_skipping import Skipping
from helpers.contract.answers import STRATEGY, answer, assert_answers, n_logits
from helpers.contract.oracle import assert_close
from helpers.tiny import prompt, tiny_llava
from transformers import LlavaForConditionalGeneration

import tokenprune
from tokenprune import FastV, PruningError

#: transformers before 5.2x mistakes the device of offloaded weights for the model's.
pytestmark = pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")

#: The second half of the decoder is on the second device.
HALVES: dict[str, Any] = {
    "model.vision_tower": "cpu",
    "model.multi_modal_projector": "cpu",
    "model.language_model.embed_tokens": "cpu",
    "model.language_model.rotary_emb": "cpu",
    "model.language_model.layers.0": "cpu",
    "model.language_model.layers.1": "disk",
    "model.language_model.norm": "disk",
    "lm_head": "cpu",
}


def one_device(model: Any, folder: Path) -> Any:
    return dispatch_model(model, {"": "cpu"}, force_hooks=True)


def two_devices(model: Any, folder: Path) -> Any:
    return dispatch_model(model, HALVES, main_device=torch.device("cpu"), offload_dir=folder, force_hooks=True)


def from_cpu(model: Any, folder: Path) -> Any:
    return cpu_offload(model, execution_device=torch.device("cpu"))


def from_disk(model: Any, folder: Path) -> Any:
    return disk_offload(model, folder, execution_device=torch.device("cpu"))


@pytest.mark.parametrize("patched_first", [False, True], ids=["", "patched_first"])
@pytest.mark.parametrize("dispatch", [one_device, two_devices, from_cpu, from_disk])
def test_dispatched_models(
    llava: Any, dispatch: Callable[[Any, Path], Any], patched_first: bool, tmp_path: Path
) -> None:
    """accelerate replaces the modules' `forward`, and rebuilds what they pass to each other."""
    model = tiny_llava()
    if patched_first:
        tokenprune.patch(model, STRATEGY)
    model = dispatch(model, tmp_path)
    for per_row in ([1], [1, 2]):
        assert_answers(model, llava, per_row)
    inputs = prompt([1])
    assert n_logits(model, inputs) == 42
    with tokenprune.patch(model, STRATEGY), torch.no_grad():
        positional = model(inputs["input_ids"], inputs["pixel_values"], inputs["attention_mask"]).logits
    assert positional.shape[1] == 15


@pytest.mark.parametrize("patched_first", [False, True], ids=["", "patched_first"])
def test_a_layer_that_is_skipped(patched_first: bool, tmp_path: Path) -> None:
    """accelerate's hooks wrap a layer's forward too, inside or outside of ours."""
    plain, model = tiny_llava(), tiny_llava()
    with tokenprune.patch(plain, Skipping(layers=(1,))):
        expected = answer(plain, prompt([1])).logits
    handle = tokenprune.patch(model, Skipping(layers=(1,))) if patched_first else None
    model = two_devices(model, tmp_path)
    handle = handle or tokenprune.patch(model, Skipping(layers=(1,)))
    assert torch.equal(answer(model, prompt([1])).logits[-1], expected[-1])
    handle.remove()
    assert torch.equal(answer(model, prompt([1])).logits[-1], answer(plain, prompt([1])).logits[-1])


@pytest.mark.parametrize(
    ("dispatch", "strategy"), [(from_cpu, FastV(keep_ratio=0.25, layer=1)), (two_devices, Staged())]
)
def test_hooks_that_are_removed_while_patched(
    dispatch: Callable[[Any, Path], Any], strategy: tokenprune.Strategy, tmp_path: Path
) -> None:
    """accelerate restores the `forward` that it saved, which discards our overrides between decoder layers."""
    model = dispatch(tiny_llava(), tmp_path)
    with torch.no_grad():
        tokenprune.patch(model, strategy)
        expected = model(**prompt([1])).logits
        remove_hook_from_submodules(model)
        with pytest.raises(PruningError, match=r"decoder layer [01] was called past this patch.*Call patch\(\) again"):
            model(**prompt([1]))
        with tokenprune.patch(model, strategy):
            assert_close(model(**prompt([1])).logits, expected)


def test_device_map_of_from_pretrained(llava: Any, tmp_path: Path) -> None:
    llava.save_pretrained(tmp_path)
    model: Any = LlavaForConditionalGeneration.from_pretrained(tmp_path, device_map={"": "cpu"}).eval()
    model.generation_config = llava.generation_config
    assert_answers(model, llava, [1, 2])
