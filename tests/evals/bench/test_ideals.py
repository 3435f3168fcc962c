"""Ideals of strategies that leave rows of patches or tiles."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.seen import seen_by

import tokenprune
from tokenprune.adapters import adapter_for
from tokenprune.evals.bench import ideal
from tokenprune.evals.bench.cases import Case, cases
from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.bench.schedule import Schedule
from tokenprune.evals.run.setups import Pruned, make_setups
from tokenprune.selection import Selection
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens

SIDE = 96
KINDS = ("qwen2.5-vl", "qwen3-vl")


@dataclass(frozen=True)
class First(TowerStrategy):
    """Keeps the first tokens in a tower without windows, like the ideal."""

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return tuple(range(n_layers))

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        n_kept = max(self.budget(tokens.n_visual), tokens.n_left // 2)
        return Selection(torch.arange(n_kept), tokens.n_left)

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection(tokens.kept_in_tower.kept, tokens.n_visual)


def found_cases(model: Any, inputs: Any, *strategies: str) -> list[Case]:
    setups = make_setups(strategies, [0.25], ["original"], baselines=())
    return cases(model, inputs, setups)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_no_layer_of_the_ideal_is_longer_or_shorter_than_the_pruned_one(kind: str, batch: int) -> None:
    model = FAMILIES[kind].build()
    inputs = prompts.random_prompt(model, batch, side=SIDE)
    found = found_cases(model, inputs, "tome", "flowcut", "pixelprune", "pixelprune:threshold=0.9+tome")
    by_name = {case.name: case for case in found}
    compared = [case for case in found if case.ideal is not None]
    assert len(compared) == 4
    for case in compared:
        assert case.ideal is not None
        assert seen_by(model, case) == seen_by(model, by_name[case.ideal]), case.name
    assert len({len(set(seen_by(model, case))) for case in compared}) > 1
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.model.visual.modules())


def test_its_features_are_those_of_a_tower_that_drops_the_others() -> None:
    model = FAMILIES["qwen2-vl"].build()
    inputs = prompts.random_prompt(model, 2, side=SIDE)
    strategy = First(keep_ratio=0.25)
    with tokenprune.patch(model, strategy) as handle, torch.inference_mode():
        expected = prompts.features(model, inputs)
        model(**inputs)
        report = handle.report
    adapter = adapter_for(model)
    schedule = Schedule.of(report, len(adapter.layers), len(adapter.tower.layers(adapter.vision_tower)))
    assert schedule.tower[0] > schedule.tower[-1] >= schedule.entering
    with ideal.narrowed(model, inputs, schedule, 40), torch.inference_mode():
        found = prompts.features(model, inputs)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other)
        assert own[schedule.entering :].abs().max() == 0 < own[: schedule.entering].abs().min(1).values.max()


def test_images_are_not_much_larger_than_what_enters_the_tower() -> None:
    model = FAMILIES["qwen2.5-vl"].build()
    inputs = prompts.random_prompt(model, 2, side=SIDE)
    n_visual = prompts.n_visual(model, inputs)
    for n_left in (n_visual, n_visual - 1, 11, 1):
        cut = ideal.encoded(model, inputs, Schedule((n_left,) * 2, (n_left,) * 2))
        sizes = (cut["image_grid_thw"].prod(1) // 4).tolist()
        assert all(n_left <= size <= n_left + n_left**0.5 for size in sizes), (n_left, sizes)
        assert len(cut["pixel_values"]) == 4 * sum(sizes)


# The ideal of pruning between the layers of a vision tower that takes a batch of tiles.


@pytest.mark.parametrize("name", ["llava-clip", "internvl", "paligemma"])
def test_every_layer_gets_as_much_as_in_the_pruned_model(name: str) -> None:
    """Also if four patches make a visual token."""
    family = FAMILIES[name]
    model, inputs = family.build(), family.prompt([1], sizes=list(family.sizes[:1]))
    model(**inputs)  # the first call adds transformers' own hooks
    hooks = n_hooks(model)
    setups = make_setups(["flowcut", "tome"], [0.5, 0.2], ["original"], baselines=())
    _, *found = cases(model, inputs, [one for one in setups if isinstance(one, Pruned)])
    by_name = {case.name: case for case in found}
    compared = [case for case in found if case.ideal is not None]
    assert len(compared) == 4
    for case in compared:
        assert case.ideal is not None
        assert min(case.schedule.tower) < case.schedule.tower[0]
        assert seen_by(model, case) == seen_by(model, by_name[case.ideal]), case.name
    assert n_hooks(model) == hooks


def n_hooks(model: Any) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())
