"""What `make test` runs of the contract matrix covers every family, strategy and mode, and all pairs of their kinds."""

from itertools import combinations
from types import SimpleNamespace

import fixed_set
from helpers.contract.cells import (
    CASES,
    CELLS,
    COMPARE_FRAMES,
    NAMES,
    model_of,
    possible,
    refusal_of,
    stages_of,
    strategy_of,
)
from helpers.contract.modes import cells_of
from helpers.families import FAMILIES

from tokenprune.adapters import adapter_for
from tokenprune.strategy import PatchStrategy, TowerStrategy


def not_refused(name: str, case: str) -> bool:
    return refusal_of(name, adapter_for(model_of(case))) is None


def fixed_cells() -> list[tuple[str, str, str, str]]:
    """Return the cells of the fixed set."""
    keys = ("name", "case", "mode", "batch")
    items = [
        SimpleNamespace(
            nodeid=f"{fixed_set.MASKING}[{cell}]", callspec=SimpleNamespace(params=dict(zip(keys, cell, strict=True)))
        )
        for cell in CELLS
    ]
    return [tuple(item.callspec.params.values()) for item in fixed_set.chosen(items)]


def kind_of(name: str) -> str:
    """Return where a strategy prunes."""
    strategy = strategy_of(name)
    if isinstance(strategy, PatchStrategy):
        return "pre-tower"
    if isinstance(strategy, TowerStrategy):
        return "in-tower"
    if stages_of(strategy):
        return "in-LLM"
    return "video" if name in COMPARE_FRAMES else "pre-LLM"


def decoder_of(case: str) -> str:
    """Return the kinds of layers of a family's language model."""
    return " ".join(sorted({str(kind) for kind in adapter_for(model_of(case)).decoder.layers.kinds}))


def test_every_family_meets_every_strategy_and_every_mode() -> None:
    met = {case: [cell for cell in fixed_cells() if cell[1] == case] for case in CASES}
    for case, cells in met.items():
        assert {name for name, *_ in cells} == set(NAMES)
        run = {(mode, batch) for name, _, mode, batch in cells if not_refused(name, case)}
        assert run == set(cells_of(FAMILIES[case])), case


def test_all_pairs_of_kinds_occur() -> None:
    """Of the kinds of strategies, modes and kinds of decoders, those that are not refused altogether."""
    ran = kinds_of(fixed_cells())
    wanted = kinds_of([(name, case, *cell) for name in NAMES for case in CASES for cell in possible(name, case)])
    for first, second in combinations(range(3), 2):
        assert {(one[first], one[second]) for one in wanted} == {(one[first], one[second]) for one in ran}


def kinds_of(cells: list[tuple[str, str, str, str]]) -> set[tuple[str, str, str]]:
    """Return (kind of strategy, mode and batch, kind of decoder) of the cells that are not refused."""
    kinds, decoders = {name: kind_of(name) for name in NAMES}, {case: decoder_of(case) for case in CASES}
    served = {(name, case): not_refused(name, case) for name in NAMES for case in CASES}
    return {(kinds[name], f"{mode} {batch}", decoders[case]) for name, case, mode, batch in cells if served[name, case]}
