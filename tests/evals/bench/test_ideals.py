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
from tokenprune.evals.bench.cases import cases
from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.bench.schedule import Schedule
from tokenprune.evals.run.setups import Pruned, make_setups
from tokenprune.selection import Selection
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens

SIDE = 96
#: Strategies of towers whose input is a sequence of patches.
PATCHES = ("tome", "flowcut", "pixelprune", "pixelprune:threshold=0.9+tome")


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


@pytest.mark.parametrize(
    ("kind", "strategies", "ratios"),
    [
        *((kind, PATCHES, [0.25]) for kind in ("qwen2.5-vl", "qwen3-vl")),
        *((kind, ("flowcut", "tome"), [0.5, 0.2]) for kind in ("llava-clip", "internvl", "paligemma")),  # tiles
    ],
)
def test_every_layer_gets_as_much_as_in_the_pruned_model(
    kind: str, strategies: tuple[str, ...], ratios: list[float]
) -> None:
    """Also if four patches make a visual token."""
    family = FAMILIES[kind]
    model = family.build()
    is_qwen = strategies == PATCHES
    inputs = prompts.random_prompt(model, 2, side=SIDE) if is_qwen else family.prompt([1], sizes=list(family.sizes[:1]))
    model(**inputs)  # the first call adds transformers' own hooks
    hooks = n_hooks(model)
    setups = make_setups(strategies, ratios, ["original"], baselines=())
    found = cases(model, inputs, [one for one in setups if isinstance(one, Pruned)])
    by_name = {case.name: case for case in found}
    compared = [case for case in found if case.ideal is not None]
    assert len(compared) == 4
    for case in compared:
        assert case.ideal is not None
        assert is_qwen or min(case.schedule.tower) < case.schedule.tower[0]
        assert seen_by(model, case) == seen_by(model, by_name[case.ideal]), case.name
    assert len({len(set(seen_by(model, case))) for case in compared}) > (1 if is_qwen else 0)
    assert n_hooks(model) == hooks


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


def n_hooks(model: Any) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())
