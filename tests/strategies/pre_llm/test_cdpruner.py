"""CDPruner: its choice computed by hand, its relevance by a CLIP model, and its error without a text tower."""

from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close, dropped_columns
from helpers.families import FAMILIES
from helpers.tiny import PATCH, SIDE, VOCAB
from transformers import CLIPConfig, CLIPModel

import tokenprune
from tokenprune import CDPruner, PruningError, UnsupportedError
from tokenprune.adapters.clip_relevance import ClipRelevance
from tokenprune.strategies.pre_llm.cdpruner import most_probable
from tokenprune.tokens import Layout, VisualTokens


def test_length_first_then_what_is_new() -> None:
    """Lengths squared 4, 3.24, 1 and 0.25. The longest is 0. What is left of the others is their part across it:
    1 is along it (0), 2 across (1), 3 across (0.25): 2, and then nothing is left of any: the longest, 1, and 3."""
    vectors = torch.tensor([[2.0, 0.0], [1.8, 0.0], [0.0, 1.0], [0.0, 0.5]])
    assert [most_probable(vectors, n).tolist() for n in (1, 2, 3, 4)] == [[0], [0, 2], [0, 2, 1], [0, 2, 1, 3]]


def test_each_choice_has_the_largest_determinant() -> None:
    vectors = torch.randn(12, 7, generator=torch.Generator().manual_seed(0)).double()
    chosen = most_probable(vectors.float(), 6).tolist()
    for i in range(6):
        by_volume = {j: torch.linalg.det((v := vectors[[*chosen[:i], j]]) @ v.T) for j in range(12)}
        assert max(by_volume, key=lambda j: float(by_volume[j])) == chosen[i]
    assert len(set(chosen)) == 6


def test_relevance_decides_between_alike() -> None:
    """Two pairs of equal features: of each, the more relevant is kept. The least relevant of all counts as 0."""
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    tokens = VisualTokens(features, Layout.raster((1, 2, 2)))
    strategy = CDPruner(keep=2, relevance=lambda tokens: torch.tensor([-0.3, -0.1, -0.2, -0.4]))
    selection = strategy.select(tokens)
    assert selection.kept.tolist() == [1, 2]
    torch.testing.assert_close(selection.scores, torch.tensor([1 / 3, 1, 2 / 3, 0]), atol=1e-4, rtol=0)


def test_equal_relevance_is_no_relevance() -> None:
    tokens = VisualTokens(torch.eye(4), Layout.raster((1, 2, 2)))
    assert CDPruner(keep=4, relevance=lambda tokens: torch.ones(4)).select(tokens).kept.tolist() == [0, 1, 2, 3]


def test_without_a_text_tower_patch_says_so(llava: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"text tower.*CDPruner\(relevance=ClipRelevance\(clip, tokenizer"):
        tokenprune.patch(llava, CDPruner(keep_ratio=0.5))


def test_relevance_of_the_wrong_kind() -> None:
    tokens = VisualTokens(torch.eye(4), Layout.raster((1, 2, 2)))
    for wrong in (torch.ones(3), torch.full((4,), torch.nan)):
        with pytest.raises(PruningError, match="one finite number for each of the 4 visual tokens"):
            CDPruner(relevance=lambda tokens, wrong=wrong: wrong).select(tokens)


class Letters:
    """A tokenizer of letters."""

    def __call__(self, text: str, return_tensors: str) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[1, *(3 + ord(letter) % 20 for letter in text), 2]])}


def clip(side: int) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": VOCAB, "max_position_embeddings": 8, "eos_token_id": 2}
    vision = {**sizes, "image_size": side, "patch_size": PATCH}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8, initializer_factor=5.0)
    return CLIPModel(config).eval()


@pytest.mark.parametrize(("case", "side"), [("llava-clip", 24), ("llava-next", 12)])
def test_clip_s_relevance_through_a_model(case: str, side: int) -> None:
    """The question changes what is kept, by the image that it is about, and dropping is masking."""
    family = FAMILIES[case]
    model, inputs = family.build(), family.prompt([1, 1], texts=[4, 4])
    kept = {}
    for questions in (["a cat", "a cat"], ["a cat", "what is the man to the left of the door holding?"]):
        strategy = CDPruner(keep_ratio=0.3, relevance=ClipRelevance(clip(side), Letters(), questions))
        with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
            logits = model(**inputs).logits
        dropped = dropped_columns(inputs["input_ids"], [handle.report])
        expected = family.oracle(model, inputs, dropped)
        for row in range(2):
            left = (inputs["attention_mask"][row].bool() & ~dropped[row]).nonzero()[:, 0]
            assert_close(logits[row, -len(left) :], expected[row, left])
        assert all(image.n_kept == strategy.budget(image.n_visual) for image in handle.report.images)
        kept[questions[1]] = [image.kept.tolist() for image in handle.report.images]
    (first, second), (same, other) = kept.values()
    assert first == same
    assert second != other


def test_clip_s_relevance_is_that_of_its_embeddings() -> None:
    """Of the last layer, and of one part, it is what CLIP itself makes of an image's CLS token and the text."""
    pixels, model = torch.randn(1, 3, SIDE, SIDE), clip(SIDE)
    relevance = ClipRelevance(model, Letters(), "a cat", layer=-1)
    text = model(input_ids=Letters()("a cat", "pt")["input_ids"], pixel_values=pixels).text_embeds
    torch.testing.assert_close(relevance.text("a cat"), text)
    assert len(relevance.text("a longer question")) == 3  # 17 letters, 6 at a time
    patches = relevance.patches(pixels)
    states = model.vision_model(pixels).last_hidden_state
    own = model.visual_projection(model.vision_model.post_layernorm(states))[:, 1:]
    torch.testing.assert_close(patches, own / own.norm(dim=-1, keepdim=True))
    tokens = VisualTokens(
        torch.zeros(patches.shape[1], 2), Layout.raster((1, 1, patches.shape[1])), 0, {"pixels": pixels}
    )
    torch.testing.assert_close(relevance(tokens), -(patches[0] @ text[0]))
    with pytest.raises(PruningError, match="has 1 questions"):
        ClipRelevance(model, Letters(), ["a cat"])(VisualTokens(tokens.features, tokens.layout, 1, tokens.statistics))
