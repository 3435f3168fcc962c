"""By default, a strategy does what its paper or its authors' code does: the numbers, and their sources. Numbers that
are not settings are tested with their strategy."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tokenprune import STRATEGIES, LateStep, Strategy
from tokenprune.strategy import StagedStrategy

#: Settings with the same default in every strategy that has them.
SHARED = {"budget_per", "average", "skip"}
#: All other defaults. Those that are None leave a value to the model or turn off part of a strategy.
DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "attentionmass": ("our own", {"mass": 0.95, "layer": 2, "every": 4}),
    "backgroundpruning": (
        "both of the paper's parts; the quantile is our own",
        {"cluster": True, "rank": "cls", "quantile": 0.1},
    ),
    "dart": (
        "released scripts: pivot_image_token, pivot_text_token, pruned_layer",
        {"pivots": 4, "text_pivots": 4, "layer": 2},
    ),
    "efficientvla": ("paper: K_key, alpha; reuse only if asked for", {"key": 4, "alpha": 0.5, "layer": 2, "reuse": 1}),
    "fastv": ("paper: K; released code: the last token", {"layer": 2, "queries": "last"}),
    "fastvid": (
        "released scripts: DySeg_c, DySeg_tau, STPrune_d, DTM_p, DTM_beta",
        {"segments": 8, "threshold": 0.9, "contextual": 0.4, "step": 4, "beta": 0.6},
    ),
    "fopru": ("a public reproduction", {"mode": "rank", "score": "column", "heads": "mean"}),
    "holov": ("released code: num_patches", {"crops": 16}),
    "ivcprune": ("released code for Qwen2.5-VL: a tenth of all tokens of each kind, of a half", {"positions": 0.2}),
    "latestep": ("our own", {"steps": 8}),
    "mosaic": ("our own", {"score": "column", "merge": True, "reach": 1.5}),
    "nuwa": (
        "paper; released code: distance",
        {"gather": True, "progressive": True, "cells": "auto", "reach": 280**0.5},
    ),
    "par": ("released code: layers 0 and 1 see everything", {"layer": 2}),
    "pixelprune": ("released code: PIXELPRUNE_THRESHOLD, PIXELPRUNE_METRIC", {"threshold": 0.0, "metric": "max"}),
    "prumerge": ("released code", {"plus": False, "neighbours": 32}),
    "prunesid": ("released code: need_token_num / 32 times the mean similarity", {"similar": 1.0}),
    "random": ("our own", {"seed": 0}),
    "scope": ("released scripts: ALPHA", {"alpha": 1.0}),
    "sparsevlm": ("released code: the best 30 % in a tenth as many clusters", {"recycle": 0.3, "clusters": 0.1}),
    "tome": ("paper: a constant r", {"schedule": "constant"}),
    "vcast": ("released code: DEFAULT_BUDGET_TEMP", {"temperature": 0.7}),
    "vflowopt": (
        "paper, with the released settings' alpha, a threshold among them (28.7 to 39.3), and R2 of 10 %",
        {
            "second": 1.0,
            "threshold": 30.0,
            "alpha": 0.0,
            "recycle": True,
            "progressive": True,
            "as_released": False,
        },
    ),
    "visionzip": ("paper: 54 dominant and 10 contextual tokens", {"contextual": 10 / 64}),
    "vispruner": ("released commands: as many important as diverse tokens", {"important": 0.5}),
}


#: What is not a quarter by default: the average of a schedule, or everything where pixels decide.
KEEP_RATIOS = {
    "adatoken": (1 + 0.8 + 0.5 + 0.25) / 4,
    "dycokettm": (1 + 3 * 0.3) / 4,
    "pixelprune": 1.0,
    "pyramiddrop": (1 + 1 / 2 + 1 / 4 + 1 / 8) / 4,
    "sparsevlm": 192 / 576,
}
#: The decoder layers at which stages start by default, in language models of 28, 32 and 36 layers.
STAGES = {
    "adatoken": ([7, 14, 21], [8, 16, 24], [9, 18, 27]),
    "attentionmass": (list(range(2, 28, 4)), list(range(2, 32, 4)), list(range(2, 36, 4))),
    **dict.fromkeys(("dart", "efficientvla", "fastv", "par"), ([2], [2], [2])),
    "ivcprune": ([16], [16], [22]),
    "nuwa": ([14], [16], [18]),
    "pyramiddrop": ([7, 14, 21], [8, 16, 24], [9, 18, 27]),
    "sparsevlm": ([3, 6, 14], [3, 7, 16], [3, 8, 18]),
    "vflowopt": ([9, 18], [10, 20], [12, 24]),
}
EVERY = {**STRATEGIES, "latestep": LateStep}


@pytest.mark.parametrize(("name", "cls"), EVERY.items())
def test_default_budgets_are_the_papers(name: str, cls: type[Strategy]) -> None:
    strategy = cls()
    assert strategy.keep_ratio == pytest.approx(KEEP_RATIOS.get(name, 0.25))
    if isinstance(strategy, StagedStrategy):
        found = tuple([stage.layer for stage in strategy.stages(n_layers)] for n_layers in (28, 32, 36))
        assert found == STAGES[name]


@pytest.mark.parametrize(("name", "cls"), EVERY.items())
def test_defaults_are_the_papers(name: str, cls: type[Strategy]) -> None:
    source, expected = DEFAULTS.get(name, ("add a line to DEFAULTS", {}))
    own = {one.name: one.default for one in fields(cls) if one.init and one.name not in SHARED}
    assert own == expected | dict.fromkeys(own.keys() - expected.keys()), source
