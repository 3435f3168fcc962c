"""What a strategy can do at the beginning of an in-LLM stage: read the text's attention, keep fewer, merge. All against
the exact oracle."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.contract.modes import MODES, STEPS
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, oracle_logits
from helpers.families import FAMILIES
from helpers.models.staged import FAMILY, LAYERS
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
        assert plain.scores is not None
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


def expected(model: Any, run: Any, reports: list[tokenprune.Report]) -> torch.Tensor:
    ids = torch.cat([run.inputs["input_ids"], run.answers], 1)
    real = torch.cat([run.inputs["attention_mask"], torch.ones_like(run.answers)], 1)
    with as_reported(model, ids, reports):
        logits = oracle_logits(model, ids, real, run.inputs["pixel_values"], dropped_columns(ids, reports))
    return logits[:, -STEPS - 1 : -1]


@pytest.mark.parametrize("strategy", [Folding(), Masses()], ids=lambda strategy: type(strategy).__name__)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str, strategy: Strategy) -> None:
    model, per_row = FAMILY.build(), [1, 2]
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        run = MODES[mode](FAMILY, model, prompt(per_row, seed=5), per_row)
    images = handle.report.images
    assert any(stage.merged is not None for stage in images[0].stages) == isinstance(strategy, Folding)
    if isinstance(strategy, Masses):
        assert len({len(image.kept_at(1)) for image in images}) > 1
    else:
        assert {(len(image.kept), len(image.kept_at(1)), len(image.kept_at(4))) for image in images} == {(36, 18, 9)}
    # Without a cache, every step selects anew, and the report describes the last one.
    steps = slice(-1, None) if mode == "uncached" else slice(None)
    assert_close(run.logits[:, steps], expected(model, run, [handle.report])[:, steps])


def test_a_conversation() -> None:
    """An image in a later turn, with a cache whose layers hold different tokens."""
    model = FAMILY.build()
    turns = [prompt([n] * 2, texts=[4, 4], seed=seed) for n, seed in ((1, 5), (0, 6), (1, 7))]
    reports, cache, out = [], None, None
    ids = torch.cat([turn["input_ids"] for turn in turns], 1)
    with torch.no_grad(), tokenprune.patch(model, Folding()) as handle:
        seen = 0
        for turn in turns:
            seen += turn["input_ids"].shape[1]
            out = model(**{**turn, "attention_mask": torch.ones(2, seen).long()}, **{CACHE: cache}, use_cache=True)
            cache = out[CACHE]
            if "pixel_values" in turn:
                reports.append(handle.report)
    pixels = torch.stack([turn["pixel_values"] for turn in turns if "pixel_values" in turn], 1).flatten(0, 1)
    with as_reported(model, ids, reports):
        logits = oracle_logits(model, ids, torch.ones_like(ids), pixels, dropped_columns(ids, reports))
    assert out is not None
    assert_close(out.logits[:, -1], logits[:, -1])


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("rows", ["last", "text", "all"])
def test_attention_is_that_of_the_eager_map(rows: str, padding: str) -> None:
    scores: list[torch.Tensor] = []

    @dataclass(frozen=True)
    class Rows(Guided):
        plan: tuple[Stage, ...] = (Stage(2, 0.5),)

        def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
            scores.append(getattr(tokens.attention, f"from_{rows}")())
            return Selection.best(scores[-1], stage.budget(tokens.n_visual))

    inputs = prompt([2, 1], padding=padding)
    real, ids = inputs["attention_mask"], (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        with tokenprune.patch(model := FAMILY.build(), Rows()):
            model(**inputs)
        maps = FAMILY.build("eager")(**inputs, position_ids=ids, output_attentions=True).attentions[1].mean(1)
    places = [(row, columns) for row in range(2) for columns in columns_of(inputs["input_ids"][row])]
    for (row, columns), found in zip(places, scores, strict=True):
        tokens = real[row].nonzero()[:, 0]
        text = tokens[(tokens > columns[-1]) & (inputs["input_ids"][row][tokens] != IMAGE)]
        asking = {"last": tokens[-1:], "text": text, "all": tokens}[rows]
        torch.testing.assert_close(found, maps[row][asking][:, columns].mean(0), atol=1e-6, rtol=1e-4)


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


def columns_of(ids: torch.Tensor) -> list[torch.Tensor]:
    return list((ids == IMAGE).nonzero()[:, 0].split(36))


def test_attention_that_is_not_causal() -> None:
    """PaliGemma's prompt attends to all of itself: text before the last token sees what comes after it."""
    scores: list[torch.Tensor] = []

    @dataclass(frozen=True)
    class FromText(Guided):
        plan: tuple[Stage, ...] = (Stage(1, 0.5),)

        def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
            scores.append(tokens.attention.from_text())
            return Selection.best(scores[-1], stage.budget(tokens.n_visual))

    family = FAMILIES["paligemma"]
    inputs = family.prompt([1, 2])
    eager = family.build("eager")
    with torch.no_grad():
        with tokenprune.patch(model := family.build(), FromText()):
            model(**inputs)
        maps = eager(**inputs, output_attentions=True).attentions[0].mean(1)
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    columns = ids[0].eq(IMAGE).nonzero()[:, 0]
    text = (real[0] & (torch.arange(len(ids[0])) > columns[-1])).nonzero()[:, 0]
    expected = maps[0][text][:, columns].mean(0)
    torch.testing.assert_close(scores[0], expected, atol=1e-6, rtol=1e-4)


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
    assert first.scores is not None
    assert second.scores is not None
    assert not first.scores.isnan().any()
    assert (~second.scores.isnan()).nonzero()[:, 0].tolist() == first.kept.tolist()
    assert second.merged is not None
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
    for name in ("attention", "entered"):
        with pytest.raises(PruningError, match=rf'(?s)tokens.{name} is not among the .*needs = .*"text_attention"'):
            getattr(tokens, name)


@pytest.mark.parametrize("case", ["llava-next", "llava-onevision", "qwen2-vl", "qwen3-vl", "paligemma", "idefics3"])
def test_merging_in_other_families(case: str) -> None:
    family = FAMILIES[case]
    model = family.build(n_layers=LAYERS)
    inputs = family.prompt([1, 2])
    with torch.no_grad(), tokenprune.patch(model, Folding()) as handle:
        run = MODES["greedy"](family, model, inputs, [1, 2])
    whole = run.whole(family)
    assert all(stage.merged is not None for image in handle.report.images for stage in image.stages)
    with as_reported(model, whole["input_ids"], [handle.report]):
        logits = run.expected(family, model, dropped_columns(whole["input_ids"], [handle.report]))
    assert_close(run.logits, logits)
