"""Wrong return values and declarations of a user's own strategy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.tiny import prompt

import tokenprune
from tokenprune import Compose, FoPru, PruningError, ScoreStrategy, Selection, SettingError, Strategy
from tokenprune.selection import Merge, n_reaching
from tokenprune.serving.vllm.startup.refusals import check_strategy
from tokenprune.strategy import DenoisingStage, Stage, StagedStrategy


@dataclass(frozen=True)
class Scoring(ScoreStrategy):
    """Returns given scores."""

    what: str = "scores"

    def score(self, tokens: Any) -> Any:
        features = tokens.features.float()
        norms = features.norm(dim=-1)
        wrong = {"one": features.norm(), "all": features, "none": None, "numpy": norms.numpy()}
        return wrong.get(self.what, norms)


@pytest.mark.parametrize(
    ("what", "found"),
    [("one", r"\(\) of torch"), ("all", r"\(36, 32\) of torch"), ("none", "a NoneType"), ("numpy", "a ndarray")],
)
def test_scores_of_a_wrong_shape(llava: Any, what: str, found: str) -> None:
    message = rf"^Scoring.score returned {found}.*; it must return a tensor of shape \(36,\), one score for each"
    patched = tokenprune.patch(llava, Scoring(keep=4, what=what))
    with torch.no_grad(), patched, pytest.raises(PruningError, match=message):
        llava(**prompt([1]))


def test_a_strategy_that_does_not_call_its_base_class() -> None:
    @dataclass(frozen=True)
    class Forgetful(Scoring):
        def __post_init__(self) -> None:
            pass

    with pytest.raises(SettingError, match=r"neither keep_ratio nor keep. Call super\(\).__post_init__\(\) first"):
        Forgetful().budget(8)
    with pytest.raises(SettingError, match=r"give every Stage one of the two: Stage\(layer, keep_ratio=0.25\)"):
        Stage(2).budget(8)


@pytest.mark.parametrize(
    ("budget", "message"),
    [({"keep_ratio": 25.0}, "Stage: keep_ratio=25.0 is not a fraction"), ({"keep_ratio": 0.5, "keep": 3}, "both set")],
)
def test_a_stage_with_an_impossible_budget(budget: dict[str, Any], message: str) -> None:
    for stage in (Stage, DenoisingStage):
        with pytest.raises(SettingError, match=message):
            stage(1, **budget)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("number", [1.5, "1", None, True])
def test_a_stage_from_no_layer_or_step(number: Any) -> None:
    """For example half of the layers, which is a float."""
    with pytest.raises(SettingError, match=rf"^Stage: layer={number!r} is not the number of a .*n_layers // 2"):
        Stage(number, keep_ratio=0.5)
    with pytest.raises(SettingError, match=rf"^DenoisingStage: step={number!r} is not the number of a denoising step"):
        DenoisingStage(number, keep_ratio=0.5)


@pytest.mark.usefixtures("unchecked")
def test_selections_of_lists() -> None:
    wrong: Any = [0, 1, 2, 3]
    with pytest.raises(PruningError, match=r"Selection.kept must be a one-axis LongTensor .*, not a list"):
        Selection(wrong, 4)
    with pytest.raises(PruningError, match=r"Selection.scores is a list; it needs .* 4 visual tokens, in a tensor"):
        Selection(torch.arange(2), 4, wrong)


@pytest.mark.parametrize(
    ("target", "source", "weight"),
    [(2, 0, 1.0), (-1, 0, 1.0), (0, 4, 1.0), (0, -1, 1.0), (0, 3, torch.nan), (0, 3, torch.inf)],
)
def test_merges_that_cannot_be(target: int, source: int, weight: float) -> None:
    """A negative index would select another token, and NaN would spread through the whole language model."""
    merge = Merge(torch.tensor([0, target]), torch.tensor([1, source]), torch.tensor([0.5, weight]))
    message = (
        r"weights that are not finite, or merges other tokens than sources 0\.\.3 into targets 0\.\.1\. Targets are"
    )
    with pytest.raises(PruningError, match=message):
        Selection(torch.tensor([1, 2]), 4, merged=merge)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("needs", "message"),
    [
        *(
            (kind, r"Needing.needs is not a frozenset. Write needs = frozenset")
            for kind in ("vision_attention", [], {"x"})
        ),
        (frozenset({"vision_atention"}), "unknown statistic 'vision_atention'. Did you mean 'vision_attention'"),
    ],
)
def test_needs_that_cannot_be(llava: Any, needs: Any, message: str) -> None:
    @dataclass(frozen=True)
    class Needing(Scoring):
        pass

    Needing.needs = needs
    with pytest.raises(SettingError, match=message):
        tokenprune.patch(llava, Needing(keep=4))


@dataclass(frozen=True)
class Mine(Strategy):
    """Selects what a function returns."""

    function: Callable[[Any], Any] = lambda tokens: None

    def select(self, tokens: Any) -> Any:
        return self.function(tokens)


def merging(*parts: Any) -> Callable[[Any], Selection]:
    """Return a function that keeps the first four tokens, with tokens merged into them."""
    return lambda tokens: Selection(torch.arange(4), tokens.n_visual, None, Merge(*parts))


def in_place(tokens: Any) -> Selection:
    features = tokens.features.float()  # float32 is not copied
    features -= features.mean(0)
    return Selection.best(features.norm(dim=-1), 4)


FOUR = torch.arange(4)
WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "tuple": (
        lambda tokens: (FOUR, tokens.n_visual),
        r" returned tuple; it must return a Selection over 36 .*LongTensor",
    ),
    "over others": (lambda tokens: Selection(FOUR, tokens.n_visual + 1), r".* must return a Selection over 36 visual"),
    "greedy": (
        lambda tokens: Selection.all(36, tokens.features.device),
        r" kept 36 visual tokens; its budget is 4",
    ),
    "unsorted": (lambda tokens: Selection(FOUR.flip(0), tokens.n_visual), r": Selection.kept must be ascending"),
    "nan": (lambda tokens: Selection.best(tokens.features[:, 0] * torch.nan, 4), r": .*NaN.*nan_to_num"),
    "column": (lambda tokens: Selection.best(tokens.features[:, :1], 4), r": .*\(36, 1\) of torch.float32.*one-axis"),
    "last left out": (
        lambda tokens: Selection.best(tokens.features[:, 0], -33),
        r": Selection.best .* keep -33 tokens",
    ),
    "half a token": (lambda tokens: Selection.best(tokens.features[:, 0], 4.0), r": .*keep 4.0 tokens.*self.budget"),  # type: ignore[arg-type]
    "in place": (in_place, r" changed tensors of its tokens in place.*clone\(\).*Merge"),
    "no merge": (lambda tokens: Selection(FOUR, tokens.n_visual, None, (FOUR, FOUR)), r": .*is a tuple; write Merge\("),  # type: ignore[arg-type]
    "lists": (merging([0], [5], [1.0]), r": a Merge has targets a list"),
    "a target for all": (
        merging(FOUR[:1], FOUR, FOUR.float()),
        r": a Merge has targets \(1,\) of torch.int64, sources \(4,\)",
    ),
    "a weight for all": (merging(FOUR, FOUR, torch.ones(1)), r": a Merge has .* weights \(1,\)"),
    "places of 32 bits": (
        merging(FOUR.int(), FOUR, FOUR.float()),
        r": a Merge has targets \(4,\) of torch.int32.*LongTensors",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", WRONG)
def test_every_error_names_the_strategy(llava: Any, what: str) -> None:
    """Also for a step of a composed strategy, whose name comes second. Such a strategy breaks no other call."""
    function, message = WRONG[what]
    with torch.no_grad():
        plain = llava(**prompt([1])).logits
    for strategy, name in (
        (Mine(keep=4, function=function), "Mine"),
        (Compose(FoPru(keep=36), Mine(keep=4, function=function)), "Compose.select: Mine"),
    ):
        patched = tokenprune.patch(llava, strategy)
        with torch.no_grad(), patched:
            with pytest.raises(PruningError, match=rf"(?s)^{name}\.select{message}"):
                llava(**prompt([1]))
            llava.generate(**prompt([0]), max_new_tokens=2)
        assert torch.equal(llava(**prompt([1])).logits, plain)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("returned", [None, 4.0, 0])
def test_budgets_that_are_no_counts(llava: Any, returned: Any) -> None:
    @dataclass(frozen=True)
    class Counting(Mine):
        def budget(self, n_visual: int) -> Any:
            return returned

    with (
        torch.no_grad(),
        tokenprune.patch(llava, Counting()),
        pytest.raises(PruningError, match=r"^Counting.budget\(36\)"),
    ):
        llava(**prompt([1]))


@pytest.mark.usefixtures("unchecked")
def test_scores_of_other_types(llava: Any) -> None:
    """Ranks and masks are valid scores too, and so are infinite ones unless they are summed."""
    strategy = Mine(keep=4, function=lambda tokens: Selection.best(torch.arange(tokens.n_visual), torch.tensor(4)))  # type: ignore[arg-type]
    with torch.no_grad(), tokenprune.patch(llava, strategy) as handle:
        llava(**prompt([1]))
    (image,) = handle.report.images
    assert image.kept.tolist() == [32, 33, 34, 35]
    assert image.scores.dtype == torch.float32
    with pytest.raises(PruningError, match="some importance scores are infinite"):
        n_reaching(torch.tensor([1.0, torch.inf]), 0.5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("method", "returned", "message"),
    [
        ("stages", None, r"returned None; it must return a tuple of Stage, such as \(Stage\(n_layers // 2"),
        ("stages", Stage(1, 0.5), r"returned Stage\(layer=1.*must return a tuple of Stage"),
        ("stages", (1,), r"returned \(1,\); it must return a tuple of Stage"),
        ("stages", (Stage(1),), r"returned Stage\(layer=1.*no budget; write Stage\(n_layers // 2, keep_ratio=0.25\)"),
        ("skipped_layers", None, r"returned None; it must return a tuple with the numbers of layers"),
        ("skipped_layers", 1, r"returned 1; it must return a tuple with the numbers of layers"),
    ],
)
def test_stages_and_layers_that_are_none(llava: Any, method: str, returned: Any, message: str) -> None:
    @dataclass(frozen=True)
    class Planned(StagedStrategy):
        all_enter = True

        def stages(self, n_layers: int) -> Any:
            return returned if method == "stages" else ()

        def skipped_layers(self, n_layers: int) -> Any:
            return returned if method == "skipped_layers" else ()

    with pytest.raises(SettingError, match=rf"^Planned.{method} {message}"):
        tokenprune.patch(llava, Planned())
    with pytest.raises(SettingError, match=rf"^Planned.{method} {message}"):  # None would mean no stages at all
        check_strategy(Planned(), 6, "TokenPruneLlava")
