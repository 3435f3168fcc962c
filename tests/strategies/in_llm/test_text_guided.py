"""Strategies that prune inside the language model, on small tensors computed by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tokenprune import PAR, AdaToken, AttentionMass, EfficientVLA, FastV, Nuwa, PyramidDrop, SparseVLM
from tokenprune.strategies.in_llm.sparsevlm import raters
from tokenprune.strategy import Stage, StagedStrategy
from tokenprune.tokens import FirstLayerInputs, Layout, StageTokens, TextAttention


def stage_tokens(
    weights: list[float], n_visual: int, features: Any = None, entered: FirstLayerInputs | None = None
) -> StageTokens:
    """Return visual tokens followed by text. Every query attends to a token in proportion to `weights`."""
    keys = torch.tensor(weights).log()[None, :, None]
    visual, text = torch.arange(n_visual), torch.arange(n_visual, len(weights))
    real = torch.ones(len(weights)).bool()
    attention = TextAttention(torch.ones_like(keys), keys, 1.0, real, visual, text)
    features = torch.zeros(n_visual, 2) if features is None else torch.tensor(features)
    prompt = None if entered is None else lambda: entered
    return StageTokens(features, visual, Layout.raster((1, 1, n_visual)), text_attention=attention, prompt=prompt)


def left(strategy: StagedStrategy, tokens: StageTokens, stage: Stage = Stage(2, keep=2)) -> list[int]:  # noqa: B008
    return strategy.select_at(stage, tokens).kept.tolist()


def test_fastv_by_the_last_token() -> None:
    tokens = stage_tokens([1, 4, 2, 3, 5, 5], 4)
    selection = FastV(keep=2).select_at(Stage(2, keep=2), tokens)
    # The last token sees all: 1, 4, 2 and 3 of 20.
    torch.testing.assert_close(selection.scores, torch.tensor([0.05, 0.2, 0.1, 0.15]))
    assert selection.kept.tolist() == [1, 3]


def test_fastv_by_all_tokens() -> None:
    """The average over the rows of the causal map; the first visual token is seen by the most."""
    tokens = stage_tokens([1, 4, 2, 3, 5, 5], 4)
    selection = FastV(keep=2, queries="all").select_at(Stage(2, keep=2), tokens)
    # By column: (1 + 1/5 + 1/7 + 1/10 + 1/15 + 1/20) / 6, (4/5 + 4/7 + 4/10 + 4/15 + 4/20) / 6, and so on.
    torch.testing.assert_close(selection.scores, torch.tensor([0.259921, 0.373016, 0.119841, 0.108333]))
    assert selection.kept.tolist() == [0, 1]


@pytest.mark.parametrize(
    "strategy", [PyramidDrop(), AdaToken(keep_ratio=0.5), Nuwa()], ids=lambda one: type(one).__name__
)
def test_stages_by_the_last_token(strategy: StagedStrategy) -> None:
    """It sees 1, 4, 2 and 3 of 20. The text before it sees the reciprocals: both together attend to 0 and 2 most."""
    tokens = stage_tokens([1, 4, 2, 3, 5, 5], 4)
    attention = tokens.attention
    opposite = attention.queries.index_fill(1, torch.tensor([4]), -1.0)
    selection = strategy.select_at(
        Stage(2, keep=2), replace(tokens, text_attention=replace(attention, queries=opposite))
    )
    assert selection.kept.tolist() == [1, 3]
    torch.testing.assert_close(selection.scores, torch.tensor([0.05, 0.2, 0.1, 0.15]))


@pytest.mark.parametrize(
    "strategy", [AttentionMass(mass=1.0), EfficientVLA(key=1, alpha=1.0), PAR()], ids=lambda one: type(one).__name__
)
def test_stages_by_all_of_the_text(strategy: StagedStrategy) -> None:
    """The first of two text tokens sees the reciprocals of what they weigh to the last one, 1, .25, .5 and .33 of 2.28.
    In the mean, 0 and 2 get most."""
    tokens = stage_tokens([1, 4, 2, 3, 5, 5], 4)
    opposite = tokens.attention.queries.index_fill(1, torch.tensor([4]), -1.0)
    tokens = replace(tokens, text_attention=replace(tokens.attention, queries=opposite))
    assert strategy.select_at(Stage(2, keep=2), tokens).kept.tolist() == [0, 2]


def test_efficientvla_takes_key_relevant_and_diverse_tokens() -> None:
    features = [[1.0, 0], [1, 0], [0, 1], [0, 1], [1, 1], [-1, 0]]
    tokens = stage_tokens([6, 2, 5, 3, 4, 1, 9], 6, features)
    # The key token: 0. Of three others one by relevance: 2. Of 1, 3, 4, 5, at 0, 1, 0.29 and 2 from the key: 3 and 5.
    selection = EfficientVLA(key=1, alpha=0.34).select_at(Stage(2, keep=4), tokens)
    assert selection.kept.tolist() == [0, 2, 3, 5]
    torch.testing.assert_close(selection.scores, torch.tensor([1, 0.2, 0.8, 0.4, 0.6, 0]))
    assert left(EfficientVLA(key=1, alpha=0.6), tokens, Stage(2, keep=4)) == [0, 2, 3, 5]  # 1.8 of three, rounded down
    assert left(EfficientVLA(key=1, alpha=1.0), tokens, Stage(2, keep=4)) == [0, 2, 3, 4]
    assert left(EfficientVLA(key=1, alpha=0.0), tokens, Stage(2, keep=4)) == [0, 2, 3, 5]
    assert left(EfficientVLA(key=4, alpha=0.5), tokens, Stage(2, keep=2)) == [0, 2]


def test_efficientvla_takes_what_is_least_like_every_key_token() -> None:
    """The key tokens are 0 and 1. Of 2 the cosines to them are 1 and 0, of 3 both are .71: 2 is like one of them."""
    tokens = stage_tokens([6, 5, 1, 1, 9], 4, [[1.0, 0], [0, 1], [1, 0], [1, 1]])
    assert left(EfficientVLA(key=2, alpha=0.0), tokens, Stage(2, keep=3)) == [0, 1, 3]


def test_efficientvla_reads_the_text() -> None:
    """Both text tokens count: 3/9 and 3/18 for the third visual token, in the mean."""
    tokens = stage_tokens([2, 1, 3, 3, 9], 3, [[1.0, 0], [0, 1], [1, 0]])
    selection = EfficientVLA(keep=2, key=1, alpha=0.0).select_at(Stage(2, keep=2), tokens)
    assert selection.kept.tolist() == [1, 2]  # the best, and the one that is unlike it
    torch.testing.assert_close(tokens.attention.from_text(), torch.tensor([3 / 18, 1 / 12, 1 / 4]))


def test_attention_mass_keeps_what_carries_the_mass() -> None:
    tokens = stage_tokens([1, 4, 2, 3, 10, 10], 4)
    assert left(AttentionMass(mass=0.6), tokens, Stage(2, keep=4, at_most=True)) == [1, 3]
    assert left(AttentionMass(mass=0.6), tokens, Stage(2, keep=1, at_most=True)) == [1]
    assert left(AttentionMass(mass=1.0), tokens, Stage(2, keep=3)) == [1, 2, 3]
    assert all(stage.at_most for stage in AttentionMass(mass=0.6).stages(12))
    assert not any(stage.at_most for stage in AttentionMass(mass=1.0).stages(12))


@pytest.mark.parametrize(
    "strategy",
    [EfficientVLA(alpha=1.0, cells=2), AttentionMass(mass=0.6, cells=2), SparseVLM(recycle=0.0, cells=2)],
    ids=lambda one: type(one).__name__,
)
def test_the_best_of_each_cell(strategy: StagedStrategy) -> None:
    """Of 6, 5 | 2, 1 | 4, 3, whose best three carry more than six tenths: one of each cell, not 6, 5 and 4."""
    tokens = stage_tokens([6, 5, 2, 1, 4, 3, 9], 6, entered=FirstLayerInputs(torch.ones(6, 1), torch.ones(1, 1)))
    assert left(strategy, tokens, Stage(2, keep=3)) == [0, 2, 4]
    assert left(replace(strategy, cells=None), tokens, Stage(2, keep=3)) == [0, 1, 4]


def test_sparsevlm_merges_the_next_of_its_cells() -> None:
    """The order by cells of two is 6, 4, 2 | 5, 3, 1. The first two stay, and the third is the only one recycled."""
    tokens = stage_tokens([6, 5, 2, 1, 4, 3, 9], 6, entered=FirstLayerInputs(torch.ones(6, 1), torch.ones(1, 1)))
    selection = SparseVLM(recycle=0.0001, clusters=0.0, cells=2).select_at(Stage(2, keep=3), tokens)
    assert (selection.kept.tolist(), selection.merged.sources.tolist()) == ([0, 2, 4], [2])


def test_sparsevlm_chooses_raters() -> None:
    visual = torch.tensor([[1.0, 0], [0, 1]])
    text = torch.tensor([[1.0, 5], [1, 1], [4, 1]]).log()
    # Softmax over text: (1, 1, 4) / 6 and (5, 1, 1) / 7, in the mean 0.44, 0.15 and 0.40; the mean is a third.
    assert raters(FirstLayerInputs(visual, text)).tolist() == [True, False, True]
    alike = torch.ones(3, 2)
    assert raters(FirstLayerInputs(visual, alike)).tolist() == [True] * 3
    # (1, 1000, 1000) / 2001 and (5, 1, 1) / 7, in the mean .36, .32 and .32; of the products, the first has least.
    text = torch.tensor([[1.0, 5], [1000, 1], [1000, 1]]).log()
    assert raters(FirstLayerInputs(visual, text)).tolist() == [True, False, False]


def test_sparsevlm_scores_by_raters_alone() -> None:
    """The last of two text tokens is a rater, and the first is not."""
    tokens = stage_tokens([1, 3, 2, 1, 1], 3, entered=FirstLayerInputs(torch.ones(3, 1), torch.tensor([[0.0], [5.0]])))
    selection = SparseVLM(recycle=0.0).select_at(Stage(2, keep=2), tokens)
    torch.testing.assert_close(selection.scores, torch.tensor([1 / 8, 3 / 8, 2 / 8]))
    assert (selection.kept.tolist(), selection.merged) == ([1, 2], None)
