"""Families whose inputs are packed or whose answers are spoken."""

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from helpers.contract.modes import Run, generated
from helpers.contract.oracle import assert_close, dropped_columns
from helpers.families import FAMILIES, Family
from helpers.families.omni import AUDIO, Qwen2_5Omni
from torch import Tensor

import tokenprune
from tokenprune import FoPru, GenericAdapter, Grid, PruningError, Random, UnsupportedError
from tokenprune.sequence.position_ids import compact_ids

OMNI = ["qwen2.5-omni", "qwen3-omni"]


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


@pytest.mark.parametrize("name", OMNI)
def test_audio_stays(name: str) -> None:
    """A row with an image and one with two, with audio in each: masking is exact, and no audio token is dropped."""
    family, model = FAMILIES[name], model_of(name)
    assert isinstance(family, Qwen2_5Omni)
    inputs = family.with_audio(family.prompt([1, 2]))
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.3)) as handle:
        run = Run(inputs, *generated(model, inputs, do_sample=False))
    assert {image.modality for image in handle.report.images} == {"image"}
    dropped = dropped_columns(run.whole(family)["input_ids"], [handle.report])
    assert not dropped[run.whole(family)["input_ids"] == AUDIO].any()
    assert_close(run.logits, run.expected(family, model, dropped))
    silent = {**inputs, "input_features": torch.zeros_like(inputs["input_features"])}
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.3)):
        muted, heard = (model(**given).logits[:, -1] for given in (silent, inputs))
    assert (heard - muted).abs().max() > 1e-3  # so the answer depends on the audio


def test_compact_ids_of_fractions() -> None:
    ids = torch.tensor([[0.0, 0.0, 1.0, 1.0, 13.5, 14.5]]).expand(3, 1, -1)
    dropped = torch.tensor([[0, 0, 1, 0, 0, 0]]).bool()
    real = torch.tensor([[0, 1, 1, 1, 1, 1]]).bool()
    assert compact_ids(ids, dropped, real)[:, 0, 1:].tolist() == [[0.0, 0.0, 1.0, 2.0, 3.0]] * 3


def test_a_video_that_the_processor_compressed_is_refused() -> None:
    family, model = FAMILIES["video-llama-3"], model_of("video-llama-3")
    inputs = family.prompt([0], videos_per_row=[1])
    inputs["video_compression_mask"][5] = False
    with (
        torch.no_grad(),
        tokenprune.patch(model, Grid(keep_ratio=0.5)),
        pytest.raises(PruningError, match=r"video_compression_mask.*use_token_compression=False"),
    ):
        model(**inputs)


def test_a_frame_of_a_video_has_the_placeholders_of_an_image() -> None:
    """GLM-4V: in the report, the video is one image whose tiles are the frames."""
    family, model = FAMILIES["glm4v"], model_of("glm4v")
    inputs = family.prompt([0, 0], videos_per_row=[1, 2])
    assert (inputs["mm_token_type_ids"] == 2).any()
    with torch.no_grad(), tokenprune.patch(model, Grid(keep_ratio=0.5)) as handle:
        model(**inputs)
    assert [(image.row, image.modality, image.layout.grid) for image in handle.report.images] == [
        (0, "video", (2, 4, 3)),
        (1, "video", (3, 3, 3)),
        (1, "video", (2, 4, 3)),
    ]


def test_images_beside_videos_of_glm_5_next() -> None:
    """Both use the placeholder of images; a video's placeholders are between its markers."""
    family: Any = FAMILIES["glm5-next"]
    model, inputs = family.build(), family.prompt([1], videos_per_row=[1])
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.4)) as handle:
        logits = model(**inputs).logits
    kinds = inputs["mm_token_type_ids"][0]
    dropped = torch.zeros_like(inputs["input_ids"]).bool()
    for image in handle.report.images:
        columns = (kinds == {"image": 1, "video": 2}[image.modality]).nonzero()[:, 0]
        assert image.n_visual == len(columns)
        dropped[0, columns] = True
        dropped[0, columns[image.kept]] = False
    assert [image.modality for image in handle.report.images] == ["image", "video"]
    assert_close(logits[0], family.oracle(model, inputs, dropped)[0, ~dropped[0]])


# Whole Qwen-Omni models whose thinker is pruned: they write text, and raise an error that explains why not speech.


IM_START, IM_END, USER, ASSISTANT = 10, 11, 12, 13


@cache
def speaker() -> Any:
    """Return a Qwen3-Omni with a thinker, a talker and a decoder for its codes."""
    torch.manual_seed(0)
    config = Family("qwen3-omni-whole").config()
    model: Any = transformers.Qwen3OmniMoeForConditionalGeneration(config).eval()
    for layer in model.talker.model.layers:
        for weights in layer.mlp.experts.parameters():  # transformers leaves them uninitialised
            torch.nn.init.normal_(weights, std=0.02)
    return model


def prompt(n_images: int) -> dict[str, Any]:
    """Return a user's turn and the beginning of the answer."""
    inputs = FAMILIES["qwen3-omni"].prompt([n_images])
    before, after = torch.tensor([[IM_START, USER]]), torch.tensor([[IM_END, IM_START, ASSISTANT, 20]])
    inputs["input_ids"] = torch.cat([before, inputs["input_ids"], after], 1)
    return {**inputs, "attention_mask": torch.ones_like(inputs["input_ids"])}


def answered(inputs: dict[str, Any], **settings: Any) -> Any:
    torch.manual_seed(0)
    thinker = {"thinker_max_new_tokens": 4, "thinker_eos_token_id": None, "thinker_do_sample": False}
    return speaker().generate(**inputs, **thinker, talker_max_new_tokens=5, **settings)


@pytest.mark.filterwarnings("ignore")  # of transformers' talker
def test_speech_is_refused_where_the_prompt_was_pruned() -> None:
    model, inputs = speaker(), prompt(1)
    sequences, sound = answered(inputs, return_audio=True)
    assert sound.numel() > 0
    with tokenprune.patch(model.thinker, Random(keep_ratio=0.5)) as handle:
        with pytest.raises(PruningError, match=r'a whole Qwen-Omni reads one for each token .* generation_mode="text"'):
            answered(inputs, return_audio=True)
        for settings in ({"generation_mode": "text"}, {"return_audio": False}):
            text: Tensor = answered(inputs, **settings)
            assert text.shape == sequences.shape
            assert handle.report.n_kept == handle.report.n_visual // 2 > 0
        # Nothing is missing if all tokens are kept, or if there is no image.
        spoken, _ = answered(prompt(0), return_audio=True)
        assert spoken.shape[1] == prompt(0)["input_ids"].shape[1] + 4
    with tokenprune.patch(model.thinker, Random(keep_ratio=1.0)):
        again, same = answered(inputs, return_audio=True)
    assert torch.equal(again, sequences)
    assert torch.equal(same, sound)


@pytest.mark.parametrize("name", ["qwen2.5-omni", "qwen3-omni"])
def test_hidden_states_are_refused_as_whole_models_ask_for_them(name: str) -> None:
    """transformers 5.24 passes images to the talker of Qwen2.5-Omni, which takes none: it cannot speak about them."""
    family = FAMILIES[name]
    model, inputs = family.build(), family.prompt([1])
    settings: Any = {"max_new_tokens": 2, "do_sample": False, "return_dict_in_generate": True}
    with tokenprune.patch(model, Random(keep_ratio=0.5)):
        model.generate(**inputs, **settings)
        with pytest.raises(PruningError, match="talker of a whole Qwen-Omni reads one for each token"):
            model.generate(**inputs, **settings, output_hidden_states=True)


@pytest.mark.parametrize("adapter", [None, GenericAdapter])
def test_a_whole_model_says_which_part_to_patch(adapter: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"Patch that: patch\(model\.thinker, \.\.\.\)"):
        tokenprune.patch(speaker(), Random(keep_ratio=0.5), adapter=adapter)
