"""Strategies in sequence: budgets, order, merging, reports, names."""

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import (
    PAR,
    BackgroundPruning,
    Compose,
    DivPrune,
    Downsample,
    EfficientVLA,
    FastV,
    FlowCut,
    FoPru,
    Grid,
    LateStep,
    Mosaic,
    PixelPrune,
    Random,
    Selection,
    SettingError,
    UnsupportedError,
    VFlowOpt,
)
from tokenprune.selection import Merge, StepReport, budget
from tokenprune.strategies import make, parse
from tokenprune.strategies.parsing import StrategySpec
from tokenprune.strategies.registry import changed_settings, name_of
from tokenprune.strategy import Strategy
from tokenprune.tokens import Layout, VisualTokens

#: Families and compositions that can prune them: before and after the tower, twice after it, in the tower and after it,
#: after it and in the language model; merging in the second, in both, and in the first.
PAIRS = [
    ("qwen2.5-vl", "pixelprune:keep_ratio=0.8+fopru"),
    ("qwen3-vl", "pixelprune:keep_ratio=0.7+divprune"),
    ("kimi-k25", "pixelprune:keep_ratio=0.7+visionzip"),
    ("paddleocr-vl", "pixelprune:keep_ratio=0.7+fopru:cells=auto"),
    ("glm4v", "pixelprune:keep_ratio=0.7+fastv:layer=1"),
    ("qwen3.5", "pixelprune:keep_ratio=0.7+random:keep_ratio=0.5+divprune"),
    ("llava-clip", "divprune:keep_ratio=0.6+visionzip"),
    ("llava-clip", "visionzip:keep_ratio=0.6+prumerge"),
    ("llava-clip", "visionzip:keep_ratio=0.6+fopru"),
    ("llava-clip", "fopru:keep_ratio=0.6+scope"),
    ("llava-clip", "flowcut:keep_ratio=0.6+divprune"),
    ("llava-clip", "prumerge:keep_ratio=0.6+fastv:layer=1"),
    ("qwen2.5-vl", "downsample:keep_ratio=0.6+fopru"),
    ("llava-clip", "downsample:keep_ratio=0.6+mosaic:keep_ratio=0.8+fastv:layer=1"),
]


@cache
def model_of(case: str) -> Any:
    return FAMILIES[case].build()


@pytest.mark.parametrize(("case", "text"), PAIRS)
def test_dropping_one_after_the_other_equals_masking(case: str, text: str) -> None:
    family, model, strategy = FAMILIES[case], model_of(case), parse(text, keep_ratio=0.3)
    inputs = family.prompt([2, 1])
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        out = model.generate(
            **inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    report = handle.report
    whole = family.continued(inputs, out.sequences[:, -4:])
    dropped = dropped_columns(out.sequences, [report])
    with as_reported(model, out.sequences, [report]):
        expected = family.oracle(model, whole, dropped)
    assert_close(torch.stack(out.logits, 1), expected[:, -5:-1])
    assert isinstance(strategy, Compose)
    for image in report.images:
        assert [step.strategy for step in image.steps] == [type(step).__name__ for step in strategy.steps]
        counts = [len(step.kept) for step in image.steps]
        n_seen = image.n_visual if image.shrunk is None else len(image.shrunk.kept)
        budgets = [step.budget(n_seen) for step in strategy.steps[:-1]]
        if image.shrunk is not None:  # to the largest grid within the budget
            assert n_seen <= strategy.steps[0].budget(image.n_visual)
            budgets[0] = n_seen
        assert counts == [*budgets, image.n_kept]
        assert len(image.kept_at(1)) == budget(n_seen, strategy.steps[-1].keep_ratio, None)
        assert len(image.kept_at(1)) <= budget(image.n_visual, 0.3, None)
        for before, after in zip(image.steps, image.steps[1:], strict=False):
            assert set(after.kept.tolist()) <= set(before.kept.tolist())
        assert torch.equal(image.steps[-1].kept, image.kept)


@dataclass(frozen=True)
class Halving(Strategy):
    """Keeps every second token, as the mean of itself and the next one."""

    def select(self, tokens: VisualTokens) -> Selection:
        kept = torch.arange(0, tokens.n_visual, 2)
        pairs = torch.stack([kept, kept + 1], 1).flatten()
        targets = torch.arange(len(kept)).repeat_interleave(2)
        merge = Merge.mean(targets, pairs, torch.ones(len(pairs)), len(kept))
        return Selection(kept, tokens.n_visual, None, merge)


@dataclass(frozen=True)
class Last(Strategy):
    """Keeps the last tokens unchanged."""

    def select(self, tokens: VisualTokens) -> Selection:
        n_kept = self.budget(tokens.n_visual)
        return Selection(torch.arange(tokens.n_visual)[-n_kept:], tokens.n_visual)


def selected(strategy: Strategy, features: Tensor) -> tuple[list[int], list[float]]:
    """Return the kept tokens of a row, and the one feature that each then has."""
    selection = strategy.select(VisualTokens(features[:, None], Layout.raster((1, 1, len(features)))))
    merged = features[selection.kept][:, None]
    if selection.merged is not None:
        merged = selection.merged.apply(features[:, None], selection.kept)
    return selection.kept.tolist(), merged[:, 0].tolist()


def test_merging_twice_by_hand() -> None:
    features = torch.tensor([1.0, 3.0, 5.0, 9.0, 2.0, 2.0, 0.0, 8.0])
    assert selected(Compose(Halving(keep=4), Halving(keep=2)), features) == ([0, 4], [4.5, 3.0])
    assert selected(Compose(Halving(keep=4), Last(keep=2)), features) == ([4, 6], [2.0, 4.0])
    assert selected(Compose(Last(keep=4), Halving(keep=2)), features) == ([4, 6], [2.0, 4.0])
    assert selected(Compose(Last(keep=4), Last(keep=2)), features) == ([6, 7], [0.0, 8.0])


def test_what_is_left_is_where_it_was() -> None:
    """Tokens keep their places in the grid and their own attention."""
    seen = []

    @dataclass(frozen=True)
    class Looking(Last):
        def select(self, tokens: VisualTokens) -> Selection:
            seen.append(tokens)
            return super().select(tokens)

    layout = Layout((((1, 2, 3)), (1, 1, 2)), newlines=torch.tensor([0, 0, 1, 0, 0, 1, 0, 0]).bool())
    Compose(Last(keep=5), Looking(keep=2)).select(VisualTokens(torch.arange(8.0)[:, None], layout))
    (tokens,) = seen
    assert tokens.features[:, 0].tolist() == [3, 4, 5, 6, 7]
    assert tokens.layout.coordinates()[:, 2:].tolist() == [[1, 0], [1, 1], [1, 2], [0, 0], [0, 1]]
    assert tokens.rows.tolist() == [1, 1, 1, 2, 2]
    assert tokens.is_newline.tolist() == [False, False, True, False, False]


def test_the_budget_is_the_last_ones_of_the_whole_image() -> None:
    both = Compose(DivPrune(keep_ratio=0.5), FoPru(keep_ratio=0.25))
    assert (both.keep_ratio, both.budget(100)) == (0.25, 25)
    assert replace(both, keep_ratio=0.1).steps == (DivPrune(keep_ratio=0.5), FoPru(keep_ratio=0.1))
    assert replace(both, keep_ratio=None, keep=7).budget(100) == 7
    assert Compose(DivPrune(keep_ratio=0.1), FoPru(keep_ratio=0.25)).budget(100) == 10
    assert both == Compose(DivPrune(keep_ratio=0.5), FoPru(keep_ratio=0.25))
    assert repr(both) == f"Compose({DivPrune(keep_ratio=0.5)!r}, {FoPru(keep_ratio=0.25)!r})"


def test_texts_and_settings_files(tmp_path: Path) -> None:
    expected = Compose(PixelPrune(threshold=0.02), FoPru(keep_ratio=0.1, layer=-2))
    assert parse("pixelprune:threshold=0.02+fopru:layer=-2", keep_ratio=0.1) == expected
    file = tmp_path / "both.json"
    steps = ["pixelprune:threshold=0.02", "fopru:layer=-2"]
    file.write_text(json.dumps({"strategy": "compose", "settings": {"steps": steps, "keep_ratio": 0.1}}))
    assert parse(str(file)) == expected
    for name in ("fopru.json", "a+b.json"):
        (tmp_path / name).write_text(json.dumps({"strategy": "fopru", "settings": {"layer": -2}}))
    assert parse(f"pixelprune:threshold=0.02+{tmp_path / 'fopru.json'}", keep_ratio=0.1) == expected
    assert parse(str(tmp_path / "a+b.json")) == FoPru(layer=-2)
    assert parse("random:keep_ratio=5e-1+random") == Compose(Random(keep_ratio=0.5), Random())
    with tokenprune.patch(model_of("qwen2.5-vl"), "pixelprune+fopru", keep_ratio=0.5) as handle:
        assert handle.strategy == Compose(PixelPrune(), FoPru(keep_ratio=0.5))


@pytest.mark.parametrize("step", ["{file}", "{file}+fopru", "divprune+fopru", "compose:steps=['divprune','fopru']"])
def test_a_step_that_is_several_strategies_itself(step: str, tmp_path: Path) -> None:
    """In a settings file, a step may even be the file itself."""
    file = tmp_path / "both.json"
    steps = ["divprune", step.format(file=file)]
    file.write_text(json.dumps({"strategy": "compose", "settings": {"steps": steps}}))
    for read in (lambda: parse(str(file)), lambda: StrategySpec.read(str(file)).budget_setting):
        with pytest.raises(SettingError, match=r"is itself several strategies\. Write its steps instead") as caught:
            read()
        assert str(caught.value).count(str(file)) <= 2


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("pixelprune:keep_ratio=0.5+fopru", None),
        ("pixelprune+fopru:keep=3", "keep"),
        ("compose:steps=['pixelprune','fopru:keep=3']", "keep"),
        ("compose:steps=['pixelprune','fopru'],keep_ratio=0.1", "keep_ratio"),
        ("compose:steps=3", None),
        ("tokenprune:LateStep,steps=8", None),
        ("tokenprune:LateStep,steps=(8,16),keep_ratio=0.5", "keep_ratio"),
    ],
)
def test_which_setting_says_how_much_is_kept(text: str, setting: str | None) -> None:
    assert StrategySpec.read(text).budget_setting == setting


@pytest.mark.parametrize(
    "made",
    [
        Compose(PixelPrune(threshold=0.02, metric="mae"), FoPru(keep_ratio=0.1, layer=-2)),
        Compose(DivPrune(keep_ratio=0.5), Random(keep=9)),
        Compose(Downsample(keep_ratio=0.3), Random(keep_ratio=1 / 3)),
        Compose(Downsample(keep_ratio=0.3), Random(), keep_ratio=0.1),
        Compose(Downsample(keep=64), Random(keep_ratio=0.7)),
        Compose(DivPrune(keep_ratio=0.5), tokenprune.PAR(skip=(2, 3), keep_ratio=0.2)),
    ],
)
def test_what_is_written_is_read_again(made: Compose) -> None:
    """In the format of `tokenprune serve` and settings files."""
    settings = json.loads(json.dumps(changed_settings(made)))
    assert make(name_of(type(made)), **settings) == made
    assert name_of(type(made)) == "compose"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Compose(FoPru()), "at least two strategies"),
        (lambda: Compose(FoPru(), PixelPrune()), "PixelPrune prunes before the vision tower, and FoPru"),
        (lambda: Compose(PixelPrune(), PixelPrune()), "Write them in the order in which they prune"),
        (lambda: Compose(FastV(), DivPrune()), "FastV before it prunes inside the language model"),
        (lambda: Compose(FoPru(), Grid()), r"Grid works on whole images only, and FoPru leaves a part\. Put it first"),
        (lambda: Compose(PixelPrune(), Mosaic()), r"Mosaic works on whole images only.* leaves a part\. Use another"),
        (lambda: Compose(FoPru(), LateStep()), "LateStep prunes between denoising steps"),
        (lambda: Compose(FoPru(), VFlowOpt()), r"no strategy may come before or after it.*VFlowOpt\(...\) alone"),
        (lambda: Compose(VFlowOpt(), FoPru()), r"no strategy may come before or after it.*VFlowOpt\(...\) alone"),
        (lambda: Compose(FoPru(layer=-2), FoPru()), r"encoder layers \['-2', 'None'\]"),
        (lambda: Compose(FoPru(budget_per="tile"), DivPrune()), r'Write FoPru\(budget_per="image", '),
        (lambda: Compose(BackgroundPruning(), FastV()), r'Write BackgroundPruning\(budget_per="image", '),
        (lambda: parse("pixelprune+fopruu"), "Did you mean 'fopru'|fopruu"),
        (lambda: parse("pixelprune+"), "strategy"),
        (lambda: parse("pixelprune+fopru:laier=2"), "laier"),
    ],
)
def test_what_cannot_follow_each_other(made: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        made()


def test_a_step_that_keeps_too_many() -> None:
    @dataclass(frozen=True)
    class Greedy(Strategy):
        def select(self, tokens: VisualTokens) -> Selection:
            return Selection.all(tokens.n_visual, tokens.features.device)

    with pytest.raises(tokenprune.PruningError, match=r"Greedy.select kept 4 visual tokens; its budget is 2"):
        Compose(Last(keep=4), Greedy(keep=2)).select(VisualTokens(torch.zeros(8, 1), Layout.raster((1, 1, 8))))


def test_outputs_are_reused_as_the_last_step_says() -> None:
    assert Compose(FoPru(), EfficientVLA(reuse=5)).recompute_every == 5
    assert Compose(FoPru(), FastV()).recompute_every == 1
    with pytest.raises(UnsupportedError, match="an action expert in every 5 denoising steps"):
        tokenprune.patch(model_of("llava-clip"), Compose(FoPru(), EfficientVLA(reuse=5, layer=1)))
    tokenprune.patch(model_of("llava-clip"), Compose(FoPru(), EfficientVLA(layer=1))).remove()


def test_in_the_report() -> None:
    model = model_of("llava-clip")
    with torch.no_grad(), tokenprune.patch(model, Compose(FlowCut(keep_ratio=0.5), DivPrune(keep=4))) as handle:
        model(**FAMILIES["llava-clip"].prompt([1]))
    (image,) = handle.report.images
    assert "kept 4 of 36 visual tokens (FlowCut 18, DivPrune 4)" in repr(image)
    assert [type(step) for step in image.steps] == [StepReport, StepReport]


@dataclass(frozen=True)
class First(Strategy):
    """Keeps the first tokens."""

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection(torch.arange(self.budget(tokens.n_visual)), tokens.n_visual)


def test_a_prompt_that_ends_in_its_image_is_its_own_text() -> None:
    """The last column of the image, which stands in for the text, may be dropped before the language model."""
    model, inputs = FAMILIES["llava-clip"].build(n_layers=4), FAMILIES["llava-clip"].prompt([1])
    end = int((inputs["input_ids"][0] == model.config.image_token_id).nonzero()[-1]) + 1
    inputs |= {name: inputs[name][:, :end] for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), tokenprune.patch(model, Compose(First(keep=12), PAR(keep=4, layer=1))) as handle:
        model(**inputs)
    (stage,) = handle.report.images[0].stages
    assert int((stage.scores > 0).sum()) > 4
