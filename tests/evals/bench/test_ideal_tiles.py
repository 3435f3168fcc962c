"""The ideal of pruning between the layers of a vision tower that takes a batch of tiles."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.families import FAMILIES
from helpers.seen import seen_by

from tokenprune.evals.bench.cases import cases
from tokenprune.evals.run.setups import Pruned, make_setups


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
