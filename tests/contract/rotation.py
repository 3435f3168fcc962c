"""Which tests `make test` runs in addition to those that run every time: a part that changes every day.

`make matrix` runs all of them, with --all-cells. pytest's header shows the part; MATRIX_PART=3 repeats a part.
"""

from __future__ import annotations

import os
import zlib
from datetime import date
from functools import cache
from typing import Any

#: The number of parts, of which one runs per day, and the number of parts for tests that run more often.
PARTS = 16
OFTEN = 4
VARIABLE = "MATRIX_PART"
#: The tests of every strategy on every family.
COMMONEST = "test_dropping_equals_masking"
#: Slow tests of code that rarely changes: families at the sizes of their published checkpoints, block diffusion, names
#: in other releases of transformers, random draws of everything, evaluations of every kind of family, accelerate's
#: launcher, bounds by simulation, two of three ways to compile a whole model, compiled attention, the largest image,
#: and the scripts that repeat the project's own measurements and training. They always run if pytest is given such a
#: folder or file, or a test in it.
SELDOM = (
    "tests/adapters/published",
    "tests/contract/test_denoising.py",
    "tests/demos/test_large.py::test_the_bundled_image",
    "tests/dev/experiments",
    "tests/dev/measure/test_run.py",
    "tests/dev/test_fuzz.py",
    "tests/dev/test_peers_speed.py",
    "tests/dev/train",
    "tests/engine/modes/test_attention.py::test_flex_answers_as_masking",
    "tests/engine/modes/test_compile.py::test_compiled_models[forward]",
    "tests/engine/modes/test_compile.py::test_compiled_models[wrapped]",
    "tests/engine/refusals/test_renames.py",
    "tests/evals/run/test_resume.py::test_accelerate_launches",
    "tests/evals/test_other_families.py",
    "tests/evals/tune/test_bounds.py",
)
#: Beginnings of the names of tests that families with a shared adapter run every fourth day.
SHARED = (
    f"{COMMONEST}[random-{{}}-greedy-padded]",
    "test_every_mode_gives_what_the_oracle_gives[{}-greedy",
)
#: Slow tests of which a different quarter runs every day: one thing in many cases, compilation, kills, measurements,
#: other packages, and all demos.
CASES = (
    "tests/engine/costs/test_waits.py::test_a_prefill_waits",
    "tests/engine/modes/test_accelerate.py::test_regional_compilation",
    "tests/engine/modes/test_compile.py",
    "tests/engine/stages/test_skipping_modes.py::test_compiled_models",
    "tests/adapters/layouts/test_tiles.py::test_budgets_are_exact",
    "tests/adapters/test_packages.py",
    "tests/cli/test_bench.py",
    "tests/demos/test_run_all.py::test_a_table",
    "tests/engine/costs/test_memory.py::test_calls_leave_nothing_behind",
    "tests/engine/modes/test_compiler_settings.py",
    "tests/engine/modes/test_two_devices.py",
    "tests/engine/stages/test_idle.py::test_compiled_layers",
    "tests/evals/adapt/test_adapt.py::test_a_killed_training",
    "tests/evals/bench/test_families.py",
    "tests/evals/bench/test_memory.py",
    "tests/evals/run/test_resume.py::test_killed",
    "tests/evals/run/test_resume.py::test_two_processes",
    "tests/evals/search/test_optimize.py",
    "tests/evals/tasks/test_bundled.py::test_evals_on_the_bundled_model",
    "tests/evals/tune/test_tune.py",
    "tests/patching/test_probe.py::test_a_compiled_model",
    "tests/strategies/shared/test_clusters.py::test_clusters_of_any_layout",
)


def part() -> int:
    """Return today's part, or that of the environment variable, which the processes of a parallel run share."""
    return int(os.environ.setdefault(VARIABLE, str(date.today().toordinal() % PARTS)))


def names_tests(argument: str) -> bool:
    """Return whether an argument of pytest names single tests, or a folder or file that rotates."""
    return "::" in argument or argument.startswith(tuple(one.partition("::")[0] for one in (*SELDOM, *CASES)))


def runs(item: Any) -> bool:
    """Return whether a test runs every time, or today."""
    if _always(item):
        return True
    parts = OFTEN if _often(item) else PARTS
    return zlib.crc32(item.nodeid.encode()) % parts == part() % parts


def _always(item: Any) -> bool:
    """Return whether a test runs every day: it is on LLaVA or no family, or outside the contract on a family with its
    own adapter."""
    if item.nodeid.startswith((*SELDOM, *CASES)):
        return False
    from helpers.contract.cells import FIRST_CASE

    _, family = _cell(item)
    every, shared = _families()
    return family == FIRST_CASE or family not in every or not (family in shared or _in_contract(item))


def _often(item: Any) -> bool:
    """Return whether a test that does not run every time runs every fourth day."""
    if item.nodeid.startswith(SELDOM):
        return False
    from helpers.contract.cells import MECHANISMS

    name, family = _cell(item)
    if family in _families()[1]:
        return item.name.startswith(tuple(begin.format(family) for begin in SHARED))
    return not item.name.startswith(COMMONEST) or name in MECHANISMS


@cache
def _families() -> tuple[set[str], set[str]]:
    """Return all families, and those that share an adapter.

    Imported late, like the cells: otherwise the process that only starts workers would first load transformers' models.
    """
    from helpers.families import FAMILIES
    from helpers.families.common import CommonFamily

    return set(FAMILIES), {name for name, family in FAMILIES.items() if isinstance(family, CommonFamily)}


def _in_contract(item: Any) -> bool:
    return item.nodeid.startswith("tests/contract/")


def _cell(item: Any) -> tuple[str | None, str | None]:
    """Return the strategy and the family of a test, if it has them."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    name = parameters.get("name")
    return name, parameters.get("case", name)
