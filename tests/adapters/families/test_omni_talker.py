"""Whole Qwen-Omni models whose thinker is pruned: they write text, and raise an error that explains why not speech."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from helpers.families import FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import GenericAdapter, PruningError, Random, UnsupportedError

IM_START, IM_END, USER, ASSISTANT = 10, 11, 12, 13
SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "head_dim": 8}


@cache
def speaker() -> Any:
    """Return a Qwen3-Omni with a thinker, a talker and a decoder for its codes."""
    family: Any = FAMILIES["qwen3-omni"]
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    text = {**SMALL, **experts, "shared_expert_intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 1100}
    codes = {**SMALL, "vocab_size": 32, "num_hidden_layers": 1, "num_code_groups": 4}
    talker = {
        "text_config": {**text, "rope_parameters": {**SECTIONS, "mrope_interleaved": True}},
        "code_predictor_config": codes,
        "num_code_groups": 4,
        "thinker_hidden_size": 32,
        "accept_hidden_layer": 1,
        "spatial_merge_size": 2,
        "codec_eos_token_id": 40,
        "codec_nothink_id": 41,
        "codec_think_bos_id": 42,
        "codec_think_eos_id": 43,
        "codec_pad_id": 44,
        "codec_bos_id": 45,
        "speaker_id": {"ethan": 46},
        **{name: token for name, token in family.tokens().items() if name != "vision_end_token_id"},
    }
    waves = {**SMALL, "codebook_size": 32, "num_hidden_layers": 1, "num_quantizers": 4, "sliding_window": 8}
    waves |= {"num_key_value_heads": 4, "upsample_rates": [2, 2], "upsampling_ratios": [2], "decoder_dim": 32}
    del waves["head_dim"]
    torch.manual_seed(0)
    config = transformers.Qwen3OmniMoeConfig(
        thinker_config=family.config().to_dict(),
        talker_config=talker,
        code2wav_config=waves,
        im_start_token_id=IM_START,
        im_end_token_id=IM_END,
        user_token_id=USER,
        assistant_token_id=ASSISTANT,
        tts_pad_token_id=15,
        tts_bos_token_id=16,
        tts_eos_token_id=17,
    )
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
