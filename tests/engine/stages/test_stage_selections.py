"""What a strategy can do at the beginning of an in-LLM stage: read the text's attention, keep fewer, merge. All against
the exact oracle."""

from dataclasses import dataclass

import pytest
import torch
from helpers.models.staged import FAMILY
from helpers.tiny import CACHE, IMAGE, prompt

import tokenprune
from tokenprune import PruningError, Selection
from tokenprune.selection import Merge
from tokenprune.strategy import Stage, StagedStrategy, Strategy
from tokenprune.tokens import Layout, StageTokens, VisualTokens

STAGES = (Stage(1, 0.5), Stage(3, 0.25))


@dataclass(frozen=True)
class Guided(StagedStrategy):
    """Lets all tokens enter, then keeps those that the text attends to."""

    needs = frozenset({"text_attention"})

    keep_ratio: float | None = 1.0
    plan: tuple[Stage, ...] = STAGES

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return self.plan

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return Selection.best(tokens.attention.from_text(), stage.budget(tokens.n_visual))


@dataclass(frozen=True)
class Folding(Guided):
    """Merges dropped tokens into kept ones in turn."""

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        plain = super().select_at(stage, tokens)
        sources = torch.arange(tokens.n_left)
        targets = sources % len(plain.kept)
        merge = Merge.mean(targets, sources, plain.scores + 0.1, len(plain.kept))
        return Selection(plain.kept, plain.n_visual, plain.scores, merge)


@dataclass(frozen=True)
class Masses(Guided):
    """Keeps tokens that receive more than the mean, up to its budget."""

    plan: tuple[Stage, ...] = (Stage(1, 1.0, at_most=True), Stage(3, keep=11, at_most=True))

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        scores = tokens.attention.from_last()
        return Selection.best(scores, min(int((scores > scores.mean()).sum()), stage.budget(tokens.n_visual)))


def test_attention_in_a_later_turn() -> None:
    """The earlier turn's tokens in the cache, which get fewer from stage to stage, are left out of the softmax."""
    scores: list[torch.Tensor] = []
    maps: list[torch.Tensor] = []

    @dataclass(frozen=True)
    class Noting(Guided):
        def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
            scores.append(tokens.attention.from_text())
            return super().select_at(stage, tokens)

    model, inputs = FAMILY.build("eager"), {**prompt([1]), "attention_mask": None}
    with torch.no_grad(), tokenprune.patch(model, Noting()):
        cache = model(**prompt([1], texts=[5], seed=3), use_cache=True)[CACHE]
        scores.clear()
        for stage in STAGES:
            attention = model.model.language_model.layers[stage.layer - 1].self_attn
            attention.register_forward_hook(lambda module, args, output: maps.append(output[1][0]))
        model(**inputs, **{CACHE: cache})
    for weights, found, n_left in zip(maps, scores, (36, 18), strict=True):
        assert weights.shape[1] == n_left + 6 < weights.shape[2]
        among = weights[:, :, -weights.shape[1] :]
        expected = (among / among.sum(-1, keepdim=True))[:, -3:, 3:-3].mean((0, 1))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_an_image_at_the_end_is_read_by_the_last_token() -> None:
    model, inputs = FAMILY.build(), prompt([1])
    inputs = {**inputs, **{key: inputs[key][:, :-3] for key in ("input_ids", "attention_mask")}}
    assert inputs["input_ids"][0, -1] == IMAGE
    with torch.no_grad(), tokenprune.patch(model, Guided()) as handle:
        model(**inputs)
    assert len(handle.report.images[0].kept_at(4)) == 9


def test_the_text_and_the_tokens_that_entered() -> None:
    seen: list[StageTokens] = []

    @dataclass(frozen=True)
    class Looking(Guided):
        def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
            seen.append(tokens)
            return super().select_at(stage, tokens)

    model, inputs = FAMILY.build(), prompt([1, 1], texts=[2, 5])
    with torch.no_grad():
        with tokenprune.patch(model, Looking()):
            model(**inputs)
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        images = model.model.get_image_features(inputs["pixel_values"]).pooler_output
    for stage in range(2):
        for row in range(2):
            tokens = seen[2 * stage + row]
            text = embeds[row, -[2, 5][row] :]
            torch.testing.assert_close(tokens.entered.text, text)
            torch.testing.assert_close(tokens.entered.visual, images[row])
            assert tokens.n_left == [36, 18][stage]
            n_seen, n_text = len(tokens.attention.real), len(text)
            assert tokens.attention.text.tolist() == list(range(n_seen - n_text, n_seen))


def test_the_report_of_every_stage() -> None:
    model = FAMILY.build()
    with torch.no_grad(), tokenprune.patch(model, Folding()) as handle:
        model(**prompt([1]))
    (image,) = handle.report.images
    first, second = image.stages
    assert (first.layer, second.layer) == (1, 3)
    assert set(second.kept.tolist()) < set(first.kept.tolist())
    assert not first.scores.isnan().any()
    assert (~second.scores.isnan()).nonzero()[:, 0].tolist() == first.kept.tolist()
    assert second.merged.sources.tolist() == first.kept.tolist()  # counted within the image
    assert "kept 36 of 36 visual tokens, 18 from layer 1, 9 from layer 3" in repr(image)
    assert "kept 36 of 36 visual tokens before the language model, 9 in its last layer" in repr(handle.report)


@dataclass(frozen=True)
class Given(Guided):
    """Selects given tokens among those that are left."""

    kept: tuple[int, ...] = ()
    n: int = 0
    plan: tuple[Stage, ...] = (Stage(2, 0.25),)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return Selection(torch.tensor(self.kept), self.n or tokens.n_left)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Given(kept=tuple(range(10))), r"kept 10 visual tokens from layer 2 on; its budget is 9 of 36"),
        (Given(kept=(0, 1)), r"kept 2 visual tokens from layer 2 on; its budget is 9.*at_most=True"),
        (Given(kept=(0, 1), n=7), r"select_at returned a Selection over 7; .* the 36 visual tokens that are left"),
    ],
)
def test_selections_that_break_the_contract(strategy: Strategy, message: str) -> None:
    with (
        torch.no_grad(),
        tokenprune.patch(model := FAMILY.build(), strategy),
        pytest.raises(PruningError, match=message),
    ):
        model(**prompt([1]))


def test_attention_must_be_declared() -> None:
    tokens = StageTokens(torch.ones(2, 4), torch.arange(2), Layout.raster((1, 1, 2)))
    for name in ("attention", "entered", "text_features"):
        with pytest.raises(PruningError, match=rf'(?s)tokens.{name} is not among the .*needs = .*"text_attention"'):
            getattr(tokens, name)
