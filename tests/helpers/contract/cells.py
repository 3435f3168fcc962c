"""Which strategies run on which families in the contract matrix, and how."""

from collections.abc import Set
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

import tokenprune
from helpers.contract.modes import cells_of
from helpers.families import COMPACT_ONLY, DENOISING, FAMILIES, Family
from tokenprune import STRATEGIES, Compose, DivPrune, FastV, FoPru, PixelPrune, UnsupportedError
from tokenprune.adapters import ADAPTERS, ModelAdapter, adapter_for
from tokenprune.adapters.tested import read_tested
from tokenprune.sequence.masks import FULL
from tokenprune.strategy import ScoreStrategy, Stage, StagedStrategy

RATIOS = {"fopru": 0.3, "grid": 0.4, "random": 0.25, "pyramiddrop": 0.5, "adatoken": 0.5}
#: Settings without which a strategy of dropped tokens is not the same as masking: here, all steps of a policy's expert.
EXACT: dict[str, dict[str, Any]] = {"efficientvla": {"reuse": 1}}
#: Cases in addition to the registered strategies: one whose settings keep less than its budget, and sequences of two
#: strategies: before and after the tower, and after it and inside the language model.
VARIANTS: dict[str, tokenprune.Strategy] = {
    "fopru by mass": FoPru(keep_ratio=0.6, mass=0.4, least=0.1),
    "pixelprune, fopru": Compose(PixelPrune(keep_ratio=0.6), FoPru(keep_ratio=0.3)),
    "divprune, fastv": Compose(DivPrune(keep_ratio=0.6), FastV(keep_ratio=0.3)),
}
#: Settings of these strategies in addition to keep_ratio=1.0.
KEEP_ALL: dict[str, dict[str, Any]] = {
    "attentionmass": {"mass": 1.0},
    "fopru by mass": {"mass": 1.0},
    "divprune, fastv": {"steps": (DivPrune(keep_ratio=1.0), FastV(keep_ratio=1.0))},
}
ANYWHERE = "random"  # a strategy that every model can serve
#: One strategy per mechanism: dropping before the language model; encoding smaller images; dropping inside the vision
#: tower; merging there; merging before the language model and dropping inside it by the tower's scores; dropping by the
#: text's attention, in the layer before and in the one ahead; merging by it.
MECHANISMS = (ANYWHERE, "downsample", "fopru", "flowcut", "tome", "vflowopt", "fastv", "pyramiddrop", "sparsevlm")
DEPTH = 4  # decoder layers of the models for in-LLM strategies
#: All families, including those with their own tests: test_denoising.py and test_compact_only.py.
EVERY: dict[str, Family] = {**FAMILIES, **DENOISING, **COMPACT_ONLY}
REGISTERED = {name: family for name, family in FAMILIES.items() if family.class_name in ADAPTERS}
CASES = [name for name, family in REGISTERED.items() if family.refused is None]
VIDEO_CASES = [name for name in CASES if FAMILIES[name].video_sizes]
FIRST_CASE = "llava-clip"


def strategy_of(name: str, **settings: Any) -> tokenprune.Strategy:
    if name in VARIANTS:
        return replace(VARIANTS[name], **settings)
    return STRATEGIES[name](**(settings or {"keep_ratio": RATIOS.get(name, 0.3), **EXACT.get(name, {})}))


NAMES = (*STRATEGIES, *VARIANTS)
#: Computed once: there are 30,000 cells, and making a strategy checks the types of its settings.
COMPARE_FRAMES = {name for name in NAMES if "frames" in strategy_of(name).needs}


def stages_of(strategy: tokenprune.Strategy) -> tuple[Stage, ...]:
    return strategy.stages(DEPTH) if isinstance(strategy, StagedStrategy) else ()


def refusal(name: str, statistics: Set[str], stages: bool) -> str | None:
    """Return the same for a model that offers these statistics, and may or may not be pruned in stages."""
    strategy = strategy_of(name)
    if not strategy.required_statistics <= statistics:
        return "does not have it"
    if stages_of(strategy) and not stages:
        return "only pruning before the language model is supported"
    return None


def possible(name: str, case: str) -> list[tuple[str, str]]:
    """Return every (mode, batch) of a family that a strategy fits: of only videos, if it compares frames and there are
    any."""
    cells = cells_of(FAMILIES[case])
    return [cell for cell in cells if cell[1] == "video"] if name in COMPARE_FRAMES and case in VIDEO_CASES else cells


@cache
def dealt(case: str) -> set[tuple[str, str, str]]:
    """Return (strategy, mode, batch) such that a family meets every strategy and every mode. What it refuses is read
    from the stored matrix, because building every model takes seconds."""
    known, start = read_tested().get(case), CASES.index(case)
    refused = {name for name in NAMES if known and refusal(name, set(known.statistics), known.stages)}
    found = {(name, *possible(name, case)[0]) for name in refused}
    for frames in (True, False):
        names = [name for name in NAMES if name not in refused and (name in COMPARE_FRAMES) == frames]
        cells = possible(names[0], case) if names else []
        turns = range(len(names) if frames else max(len(names), len(cells)))
        found |= {(names[i % len(names)], *cells[(start + i) % len(cells)]) for i in turns}
    return found


def thorough(name: str, case: str) -> bool:
    llava = FAMILIES[case].class_name == "LlavaForConditionalGeneration"
    return name == ANYWHERE or (llava and name in MECHANISMS)


PAIRS = [(name, case) for name in NAMES for case in CASES]
CELLS = [
    (name, case, *cell)
    for name, case in PAIRS
    for cell in cells_of(FAMILIES[case])
    if thorough(name, case) or (name, *cell) in dealt(case)
]
FEW_PAIRS = [(name, case) for name, case in PAIRS if thorough(name, case) or case == FIRST_CASE]
MORE_PAIRS = [(name, case) for name, case in PAIRS if name in MECHANISMS or case == FIRST_CASE]


@cache
def model_of(case: str, n_layers: int | None = None) -> Any:
    return EVERY[case].build(n_layers=n_layers)


def refusal_of(name: str, adapter: ModelAdapter) -> str | None:
    """Return patch()'s message if it refuses a strategy for a model, or None."""
    return refusal(name, adapter.offers, set(adapter.decoder.layers.kinds) == {FULL})


def served(name: str, case: str) -> tuple[Family, Any]:
    """Return the family and its model, deep enough for the strategy's stages. If the model does not offer the
    strategy's statistics or stages, check that patch() refuses, and skip the rest of the test."""
    strategy = strategy_of(name)
    model = model_of(case, DEPTH if stages_of(strategy) else None)
    refusal = refusal_of(name, adapter_for(model))
    if refusal is not None:
        with pytest.raises(UnsupportedError, match=refusal):
            tokenprune.patch(model, strategy)
        pytest.skip(f"refused: {case} cannot serve {name}")
    return EVERY[case], model


def assert_within_budget(strategy: tokenprune.Strategy, image: tokenprune.ImageReport) -> None:
    """Check that exactly the budgets of the strategy and its stages are kept, in order, and that something is
    dropped."""
    stages = stages_of(strategy)
    assert [done.layer for done in image.stages] == [stage.layer for stage in stages]
    if isinstance(strategy, ScoreStrategy) and not strategy.all_enter and strategy.mass is not None:
        assert image.scores is not None
        assert image.n_kept == strategy.n_to_keep(image.scores) <= strategy.budget(image.n_visual)
    elif image.shrunk is not None:
        assert image.n_kept == image.shrunk.layout.n_visual <= strategy.budget(image.n_visual)
    else:
        assert image.n_kept == strategy.budget(image.n_visual)
    for stage, done in zip(stages, image.stages, strict=True):
        budget = stage.budget(image.n_visual)
        assert len(done.kept) <= budget if stage.at_most else len(done.kept) == budget
    for kept in kept_of(image):
        assert kept == sorted(set(kept))
    assert len(kept_of(image)[-1]) < image.n_visual


def kept_of(image: tokenprune.ImageReport) -> list[list[int]]:
    """Return the tokens that enter the language model, and those that are left from each stage on."""
    return [image.kept.tolist(), *(stage.kept.tolist() for stage in image.stages)]
