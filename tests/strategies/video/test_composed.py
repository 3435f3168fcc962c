"""A strategy for videos can only be the first of several."""

from __future__ import annotations

import pytest
from helpers.models.tiled import inputs_of, reported

from tokenprune import EVS, Compose, DivPrune, SettingError


def test_others_may_prune_what_it_leaves() -> None:
    strategy = Compose(EVS(keep_ratio=0.6), DivPrune(keep_ratio=0.25))
    for video in reported("qwen2-vl", inputs_of("qwen2-vl", True), strategy):
        alone = reported("qwen2-vl", inputs_of("qwen2-vl", True), EVS(keep_ratio=0.6))
        assert video.n_kept == strategy.budget(video.n_visual) < alone[0].n_kept


def test_it_does_not_prune_what_others_leave() -> None:
    with pytest.raises(SettingError, match=r"EVS works on whole images only.*Put it first"):
        Compose(DivPrune(), EVS())
