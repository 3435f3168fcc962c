"""Language models that do not compute what their config says, or cannot be read, are refused by patch()."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from helpers.families.base import IMAGE, VOCAB, decoder
from helpers.families.llava import Llava
from helpers.models.staged import Ahead
from helpers.tiny import prompt

import tokenprune
from tokenprune import Grid, UnsupportedError
from tokenprune.adapters.decoder.attention import text_heads
from tokenprune.strategy import Stage


def llava_on(config: Any, attention: str = "sdpa") -> Any:
    """Return a tiny LLaVA with another language model."""
    return Llava("llava-clip", text_config=config).build(attention)


@pytest.mark.parametrize(
    "config",
    [
        transformers.GPT2Config(tie_word_embeddings=False, n_embd=32, n_layer=2, n_head=4, vocab_size=VOCAB),
        transformers.OPTConfig(
            tie_word_embeddings=False,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=VOCAB,
            word_embed_proj_dim=32,
        ),
        transformers.BloomConfig(tie_word_embeddings=False, hidden_size=32, n_layer=2, n_head=4, vocab_size=VOCAB),
        transformers.MptConfig(tie_word_embeddings=False, d_model=32, n_layers=2, n_heads=4, vocab_size=VOCAB),
        transformers.FalconConfig(
            tie_word_embeddings=False, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCAB
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_without_layers(config: Any) -> None:
    model = llava_on(config, "eager")
    with pytest.raises(UnsupportedError, match=rf"{config.model_type} language model.*has no \.layers"):
        tokenprune.patch(model, Grid())


@pytest.mark.parametrize("layer_types", [None, ["sliding_attention"] * 2], ids=["window", "layer_types"])
def test_a_window_that_the_language_model_ignores(layer_types: Any) -> None:
    more = {} if layer_types is None else {"layer_types": layer_types}
    model = llava_on(transformers.LlamaConfig(**decoder(sliding_window=8, **more)))
    with pytest.raises(UnsupportedError, match=r"sliding_window=8.*LlamaModel ignores.*sliding_window = None"):
        tokenprune.patch(model, Grid())
    text = model.config.get_text_config()
    text.sliding_window = None
    if layer_types is not None:
        text.layer_types = None
    with torch.no_grad(), tokenprune.patch(model, Grid()) as handle:
        model(**prompt([1]))
    assert handle.report.n_kept == 9


def test_a_window_that_the_language_model_uses() -> None:
    model = llava_on(transformers.MistralConfig(**decoder(sliding_window=8)))
    tokenprune.patch(model, Grid()).remove()


def test_masks_that_depend_on_content() -> None:
    model = llava_on(transformers.DogeConfig(**decoder(keep_window_size=8)))
    with pytest.raises(UnsupportedError, match=r"DogeAttention computes which tokens to attend to from their content"):
        tokenprune.patch(model, Grid())


class SectionedAttention(torch.nn.Module):
    """Refers to the function that rotates by sections, as such classes in older transformers do."""

    config = SimpleNamespace(rope_parameters={"mrope_section": [2, 1, 1]})
    head_dim = 8

    def forward(self, *states: Any) -> Any:
        return apply_multimodal_rotary_pos_emb(*states)  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


def test_position_embeddings_of_several_components() -> None:
    """As older transformers passes them to Qwen-VL: each component has the angles of its own sections."""
    rows, tokens, width = 2, 5, 8
    attention = SectionedAttention()
    several = torch.randn(2, 3, rows, tokens, width)
    component = [0, 0, 1, 2, 0, 0, 1, 2]  # of each angle
    one = torch.stack([several[:, component[i], ..., i] for i in range(width)], -1)
    states = {"queries": torch.randn(rows, tokens, 2 * width), "keys": torch.randn(rows, tokens, width)}
    found, expected = (
        text_heads(SimpleNamespace(self_attn=attention), {**states, "attention": {"position_embeddings": tuple(given)}})
        for given in (several, one)
    )
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("n_tokens", [2, 4, 5])
def test_norms_that_return_heads_before_tokens(n_tokens: int) -> None:
    """Also of as many tokens as there are heads or key heads."""
    angles = torch.randn(2, 1, n_tokens, 8)
    layer = SimpleNamespace(self_attn=SectionedAttention())
    states = {"queries": torch.randn(1, n_tokens, 4, 8), "keys": torch.randn(1, n_tokens, 2, 8)}
    before, after = (
        text_heads(layer, {**given, "attention": {"position_embeddings": tuple(angles)}})
        for given in (states, {name: part.transpose(1, 2) for name, part in states.items()})
    )
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


#: Queries from the eighth position on are longer.
LATE = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "llama_4_scaling_beta": 2.0,
    "original_max_position_embeddings": 8,
}
TEXT_GUIDED = {
    "interleaved and in part": transformers.GlmConfig(**decoder(head_dim=8, partial_rotary_factor=0.5)),
    "in part, which the attention splits off": transformers.StableLmConfig(**decoder()),
    "interleaved": transformers.CohereConfig(**decoder()),
    "with norms": transformers.Qwen3Config(**decoder(head_dim=8)),
    "with longer queries at late positions": transformers.Ministral3Config(
        **decoder(head_dim=8, sliding_window=None, rope_parameters=LATE)
    ),
}
UNREADABLE = {
    "one projection": (transformers.Phi3Config(**decoder()), "no separate query, key and value projections"),
    "some layers do not rotate": (
        transformers.SmolLM3Config(**decoder(no_rope_layers=[1, 0])),
        "does not rotate all its queries",
    ),
    "capped": (transformers.Gemma2Config(**decoder(head_dim=8, layer_types=["full_attention"] * 2)), "caps its scores"),
}


@pytest.mark.parametrize("kind", TEXT_GUIDED)
def test_attention_is_read_as_the_model_rotates(kind: str) -> None:
    model, inputs = llava_on(TEXT_GUIDED[kind]), prompt([1])
    with tokenprune.probe(model, decoder_layers=[0, 1]) as seen:
        (image,) = seen.run(**inputs)
    with torch.no_grad():
        maps = llava_on(TEXT_GUIDED[kind], "eager")(**inputs, output_attentions=True).attentions
    visual, expected = inputs["input_ids"][0] == IMAGE, None
    for layer, weights in enumerate(maps):
        expected = weights[0].mean(0)[-1, visual]
        torch.testing.assert_close(image.text_attention[layer].from_last(), expected, atol=1e-5, rtol=0)
    ahead = Ahead(keep_ratio=1.0, plan=(Stage(1, 0.5, looks_ahead=True),))
    with torch.no_grad(), tokenprune.patch(model, ahead) as handle:
        model(**inputs)
    torch.testing.assert_close(handle.report.images[0].stages[0].scores, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_attention_that_cannot_be_read(kind: str) -> None:
    config, why = UNREADABLE[kind]
    model = llava_on(config, "eager")
    with pytest.raises(UnsupportedError, match=f"attention of the language model's layers.*{why}"):
        tokenprune.patch(model, "fastv", keep_ratio=0.5)
    with pytest.raises(UnsupportedError, match=why):
        tokenprune.probe(model, decoder_layers=[0, 1])
    with torch.no_grad(), tokenprune.patch(model, Grid()):  # strategies that prune before the language model still work
        model(**prompt([1]))
