"""DART: pivots and the tokens that are least similar to them, computed by hand."""

from typing import Any

import torch
from helpers.tiny import prompt
from helpers.tokens.by_hand import at

import tokenprune
from tokenprune import DART
from tokenprune.strategies.in_llm.dart import least_similar
from tokenprune.strategy import Stage
from tokenprune.tokens import Layout, StageTokens, TextAttention


def test_each_pivot_takes_what_is_least_like_it() -> None:
    """The pivot at 0 degrees takes 170 of 10, 100, 170 and 90; the text's at 95 degrees then takes 10."""
    vectors = at(0, 10, 100, 170, 90)
    assert least_similar(vectors, torch.tensor([0]), at(95), 3).tolist() == [0, 3, 1]
    assert least_similar(vectors, torch.tensor([0]), at(95), 1).tolist() == [0]


def test_a_taken_token_is_not_taken_again() -> None:
    """Both pivots are least like 180 degrees."""
    assert least_similar(at(0, 180, 160, 20), torch.tensor([0]), at(1), 3).tolist() == [0, 1, 2]
    assert least_similar(at(0, 180, 160, 170), torch.tensor([0]), at(1, 2), 4).tolist() == [0, 1, 3, 2]


def test_pivots_have_the_largest_keys() -> None:
    """L1 norms over both heads of 3, 5, 2, 1 for the visual tokens and 4, 9 for the text."""
    keys = torch.tensor([[[1.0], [-3], [2], [0], [4], [-5]], [[-2], [2], [0], [1], [0], [4]]])
    attention = TextAttention(keys, keys, 1.0, torch.ones(6).bool(), torch.arange(4), torch.tensor([4, 5]))
    features = at(0, 90, 80, 45) * torch.tensor([[1.0], [1], [100], [1]])  # lengths do not count
    tokens = StageTokens(features, torch.arange(4), Layout.raster((1, 1, 4)), text_attention=attention)
    tokens = StageTokens(tokens.features, tokens.left, tokens.layout, text_attention=attention, text=at(0, 180))
    selection = DART(pivots=1, text_pivots=1).select_at(Stage(2, keep=3), tokens)
    # The pivot is 1, at 90 degrees, and takes 0; the text's pivot is at 180 degrees, of 80 and 45 least like 45.
    assert selection.kept.tolist() == [0, 1, 3]
    assert selection.scores.tolist() == [3, 5, 2, 1]
    assert DART(pivots=4).select_at(Stage(2, keep=1), tokens).kept.tolist() == [1]  # fewer than pivots


def test_it_prunes_a_model_and_reads_the_text_at_the_stage(llava: Any) -> None:
    seen: list[torch.Tensor] = []

    class Watching(DART):
        def select_at(self, stage: Stage, tokens: StageTokens) -> Any:
            seen.append(tokens.text_features)
            return super().select_at(stage, tokens)

    inputs = prompt([1])
    with torch.no_grad():
        states = llava(**inputs, output_hidden_states=True).hidden_states[1]
        with tokenprune.patch(llava, Watching(keep=8, layer=1)) as handle:
            llava(**inputs)
    assert len(handle.report.images[0].stages[0].kept) == 8
    torch.testing.assert_close(seen[0], states[0, -len(seen[0]) :])
