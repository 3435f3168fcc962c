"""What a strategy of the user's own returns or declares, and should not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.tiny import prompt

import tokenprune
from tokenprune import PruningError, ScoreStrategy, Selection, SettingError
from tokenprune.selection import Merge
from tokenprune.strategy import DenoisingStage, Stage


@dataclass(frozen=True)
class Scoring(ScoreStrategy):
    """Returns what it is told to."""

    what: str = "scores"

    def score(self, tokens: Any) -> Any:
        features = tokens.features.float()
        norms = features.norm(dim=-1)
        wrong = {"one": features.norm(), "all": features, "none": None, "numpy": norms.numpy()}
        return wrong.get(self.what, norms)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("one", r"a tensor of shape \(\)"),
        ("all", r"a tensor of shape \(36, 32\)"),
        ("none", "NoneType"),
        ("numpy", "ndarray"),
    ],
)
def test_scores_of_a_wrong_shape(llava: Any, what: str, found: str) -> None:
    message = rf"^Scoring.score returned {found}; it must return a tensor of shape \(36,\), one score for each"
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
@pytest.mark.parametrize("layer", [1.0, "1", None, True])
def test_a_stage_from_no_layer(layer: Any) -> None:
    """Half of the layers is a float."""
    with pytest.raises(
        SettingError, match=rf"^Stage: layer={layer!r} is not the number of a decoder layer.*n_layers // 2"
    ):
        Stage(layer, keep_ratio=0.5)


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
    """A negative index would be that of another token, and NaN would go through the whole language model."""
    merge = Merge(torch.tensor([0, target]), torch.tensor([1, source]), torch.tensor([0.5, weight]))
    message = (
        r"weights that are not finite, or merges other tokens than sources 0\.\.3 into targets 0\.\.1\. Targets are"
    )
    with pytest.raises(PruningError, match=message):
        Selection(torch.tensor([1, 2]), 4, merged=merge)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("needs", ["vision_attention", ["vision_attention"], {"vision_attention"}])
def test_needs_of_a_wrong_type(llava: Any, needs: Any) -> None:
    @dataclass(frozen=True)
    class Needing(Scoring):
        pass

    Needing.needs = needs
    with pytest.raises(SettingError, match=r"Needing.needs is not a frozenset. Write needs = frozenset\(\{'vision_att"):
        tokenprune.patch(llava, Needing(keep=4))
