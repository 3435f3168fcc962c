"""The question's attention to visual tokens, which tells Zoom where to look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.modes.test_devices import from_cpu, from_disk
from engine.modes.test_distributed import group as group
from helpers.families import FAMILIES
from helpers.families.base import decoder
from helpers.families.llava import Llava
from helpers.files.evals import tiny_processor
from helpers.tiny import IMAGE, SIDE, tiny_llava
from PIL import Image
from torch.nn.parallel import DistributedDataParallel
from transformers import Qwen2Config

import tokenprune
from tokenprune.zoom.attention import question_attention
from tokenprune.zoom.search import Zoom


def test_it_is_the_attention_of_the_last_row() -> None:
    model = tiny_llava("clip", attention="eager")
    inputs = FAMILIES["llava-clip"].prompt([2])
    (weights,) = [
        model(**inputs, output_attentions=True).attentions[layer][0].mean(0)[-1] for layer in (0,)
    ]  # (tokens,)
    visual = inputs["input_ids"][0] == IMAGE
    found = torch.cat([image.scores for image in question_attention(model, inputs, 0)])
    torch.testing.assert_close(found, weights[visual])


def test_the_models_own_patch_is_restored() -> None:
    model, inputs = tiny_llava("clip"), FAMILIES["llava-clip"].prompt([1])
    with tokenprune.patch(model, tokenprune.Random(keep=3)) as handle:
        question_attention(model, inputs, 0)
        model(**inputs)
        assert handle.report.n_kept == 3
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("name", ["idefics2", "aria", "deepseek-ocr2"])
def test_visual_tokens_without_a_place_are_refused(name: str) -> None:
    """They come from queries that have read all patches, so their attention would point nowhere."""
    family = FAMILIES[name]
    with pytest.raises(tokenprune.UnsupportedError, match="Zoom follows attention to places in the image"):
        question_attention(family.build(), family.prompt([1]), 0)


def test_attention_that_is_not_finite_points_nowhere() -> None:
    model = tiny_llava("clip")
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(tokenprune.PruningError, match=r"decoder layer 0 has NaN or infinite values.*bfloat16"):
        Zoom(layer=0).look(model, tiny_processor(), Image.effect_noise((5 * SIDE, SIDE), 80), "01")


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
@pytest.mark.parametrize("dispatch", [from_cpu, from_disk])
def test_a_model_whose_weights_are_elsewhere(dispatch: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    """The first weight, which gives a model's device, is on no device until it is needed."""
    image = Image.effect_noise((5 * SIDE, SIDE), 80)
    expected = Zoom().look(tiny_llava(), tiny_processor(), image, "01")
    model = dispatch(tiny_llava(), tmp_path)
    look = Zoom().look(model, tiny_processor(), image, "01")
    assert repr(look) == repr(expected)
    assert model.generate(**look.inputs, max_new_tokens=2, do_sample=False).shape[0] == 1


@pytest.mark.usefixtures("group")
def test_a_wrapper_that_does_not_say_where_it_is() -> None:
    image = Image.effect_noise((5 * SIDE, SIDE), 80)
    expected = Zoom().look(tiny_llava(), tiny_processor(), image, "01")
    assert repr(Zoom().look(DistributedDataParallel(tiny_llava()), tiny_processor(), image, "01")) == repr(expected)


class Windowed(Llava):
    """A LLaVA whose first decoder layer, or all, attends to 60 tokens at a time."""

    def __init__(self, second: str) -> None:
        super().__init__("llava-clip")
        self.second = second

    def config(self) -> Any:
        config = super().config()
        kinds = ["sliding_attention", self.second]
        config.text_config = Qwen2Config(**decoder(use_sliding_window=True, sliding_window=60, layer_types=kinds))
        return config


@pytest.mark.parametrize(("second", "instead"), [("sliding_attention", ""), ("full_attention", r"Zoom\(layer=1\), ")])
def test_a_layer_that_does_not_see_the_whole_prompt_is_refused(second: str, instead: str) -> None:
    """In a prompt with all tiles, the last token attends to those within the window only."""
    model: Any = Windowed(second).build()
    image = Image.effect_noise((3 * SIDE, 2 * SIDE), 80).convert("RGB")
    assert Zoom(layer=0).look(model, tiny_processor(), image, "01").steps
    said = rf'layer 0 attends to 60 tokens at a time, and the prompt has \d+\. Write {instead}fewer tiles, or prompts="'
    with pytest.raises(tokenprune.UnsupportedError, match=said):
        Zoom(layer=0, prompts="together").look(model, tiny_processor(), image, "01")
