"""Assisted decoding: a second model or the prompt proposes tokens, and rejected ones are cropped from the cache."""

from typing import Any

import pytest
import torch
from helpers.contract.answers import STRATEGY, answer, assert_answers
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES, present
from helpers.families.base import RECENT, decoder
from helpers.tiny import ENCODES_FIRST, EOS, PAD, VOCAB, prompt, tiny_llava
from transformers import LlamaConfig, LlamaForCausalLM

import tokenprune
from tokenprune import DART, FastV, Grid, PruningError, Random, Strategy, UnsupportedError


def text_model() -> Any:
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=VOCAB,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    return LlamaForCausalLM(config).eval()


def unpatched_llava() -> Any:
    return tiny_llava(seed=4)


def patched_llava() -> Any:
    model = tiny_llava(seed=4)
    tokenprune.patch(model, Grid(keep=4))
    return model


def agreeing_llava() -> Any:
    """Return the same model under the same patch, whose proposals are accepted."""
    model = tiny_llava()
    tokenprune.patch(model, STRATEGY)
    return model


ASSISTANTS = [unpatched_llava, patched_llava, agreeing_llava]
if ENCODES_FIRST:  # earlier transformers passed the images to every assistant
    ASSISTANTS.append(text_model)


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_an_assistant_model(llava: Any, assistant: Any) -> None:
    assert_answers(llava, llava, [1], assistant_model=assistant(), max_new_tokens=8)


def test_the_model_as_its_own_assistant(llava: Any) -> None:
    """It proposes without images, while the prompt's images wait for the model's own call."""
    assert_answers(llava, llava, [1], assistant_model=llava, max_new_tokens=8)


def test_a_patched_assistant_of_an_unpatched_model(llava: Any) -> None:
    inputs = prompt([1])
    plain = answer(llava, inputs, max_new_tokens=8)
    out = answer(llava, inputs, max_new_tokens=8, assistant_model=patched_llava())
    assert torch.equal(out.sequences, plain.sequences)


def test_prompt_lookup(llava: Any) -> None:
    assert_answers(llava, llava, [1], prompt_lookup_num_tokens=3, max_new_tokens=8, eos_token_id=EOS)


@pytest.mark.parametrize("strategy", [FastV(keep_ratio=0.3, layer=1), DART(keep_ratio=0.3, layer=1)])
@pytest.mark.parametrize("proposing", ["lookup", "assistant"])
def test_proposed_tokens_are_not_read_as_the_prompt(strategy: Strategy, proposing: str) -> None:
    """Strategies that read the text keep the same tokens as without proposals."""
    model, inputs = FAMILIES["llava-clip"].build(), prompt([1], texts=[6])
    inputs["input_ids"][:, -2:] = inputs["input_ids"][:, :2]  # so that the prompt itself proposes what follows
    settings = {"prompt_lookup_num_tokens": 3} if proposing == "lookup" else {"assistant_model": unpatched_llava()}
    length = {"max_new_tokens": 8, "eos_token_id": EOS}  # older transformers needs it for lookups
    with tokenprune.patch(model, strategy) as handle:
        plain = answer(model, inputs, **length)
        (kept,) = handle.report.images[0].stages
        out = answer(model, inputs, **length, **settings)
        (found,) = handle.report.images[0].stages
    assert torch.equal(found.kept, kept.kept)
    assert_close(torch.stack(out.logits), torch.stack(plain.logits))


def test_two_passes_for_guidance(llava: Any) -> None:
    """Classifier-free guidance calls the model a second time, with text only, between two steps of the first."""
    inputs = prompt([1])
    with tokenprune.patch(llava, STRATEGY):
        plain, guided = answer(llava, inputs), answer(llava, inputs, guidance_scale=1.5)
    assert torch.equal(plain.logits[0], guided.logits[0])
    assert_answers(llava, llava, [1], guidance_scale=1.5)


@pytest.mark.skipif(not RECENT, reason="this transformers leaves images out when it prefills in chunks")
def test_prefill_in_chunks_is_refused(llava: Any) -> None:
    with tokenprune.patch(llava, STRATEGY), pytest.raises(PruningError, match="leave out prefill_chunk_size"):
        answer(llava, prompt([1]), prefill_chunk_size=8)


@pytest.mark.skipif("muse-glimmer" not in FAMILIES, reason="this transformers has no DFlash")
def test_proposals_from_hidden_states_are_refused() -> None:
    """DFlash reads the hidden state of every prompt token. Without images, it is not refused."""
    from transformers import MuseGlimmerAssistantConfig, MuseGlimmerAssistantModel

    family, model = FAMILIES["muse-glimmer"], FAMILIES["muse-glimmer"].build()
    settings = {"head_dim": 8, "num_hidden_layers": 1, "layer_types": ["full_attention"], "target_layer_ids": [0]}
    config = MuseGlimmerAssistantConfig(**decoder(**settings, block_size=3, mask_token_id=2))
    drafts = {"assistant_model": MuseGlimmerAssistantModel(config).eval(), "speculation_type": "dflash"}
    text = family.prompt([0])
    with tokenprune.patch(model, Random()):
        with pytest.raises(UnsupportedError, match="DFlashTokenCandidateGenerator proposes tokens from the hidden"):
            answer(model, family.prompt([1]), **drafts)
        out, plain = answer(model, text, **drafts), answer(model, text)
    assert torch.equal(out.sequences, plain.sequences)
    answer(model, family.prompt([1]), **drafts)


@pytest.mark.skipif(not present("gemma4"), reason="this transformers has no Gemma 4")
def test_a_drafter_that_reads_the_keys_of_the_pruned_prompt() -> None:
    """Gemma 4's drafter shares the model's keys, of which pruning leaves fewer than the prompt has tokens."""
    from transformers import Gemma4AssistantConfig, Gemma4AssistantForCausalLM

    family, model = FAMILIES["gemma4"], FAMILIES["gemma4"].build()
    text = model.config.get_text_config()
    shared = {"num_kv_shared_layers": 2, "layer_types": text.layer_types[-2:], "global_head_dim": 16}
    settings = {"head_dim": 8, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, **shared}
    config = Gemma4AssistantConfig(text_config=decoder(**settings), backbone_hidden_size=text.hidden_size)
    drafter = Gemma4AssistantForCausalLM(config).eval()
    drafter.generation_config.num_assistant_tokens = 4
    inputs = family.prompt([1])
    with tokenprune.patch(model, Random(keep_ratio=0.3)):
        plain = answer(model, inputs, max_new_tokens=12)
        out = answer(model, inputs, max_new_tokens=12, assistant_model=drafter)
    assert torch.equal(out.sequences, plain.sequences)
    assert_close(torch.stack(out.logits), torch.stack(plain.logits))
