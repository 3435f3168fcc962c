"""Which tests `make test` runs: a fixed set, the same every day. `make test-all` runs everything, with --all-cells.

Of the contract matrix, every family meets every mode and every strategy (`dealt` in helpers/contract/cells.py), and
LLaVA everything. In most other tests, the first of the families that share an adapter stands for all of them.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

CONTRACT = "tests/contract/test_contract.py::"
MASKING = CONTRACT + "test_dropping_equals_masking"
#: Tests of modes outside the cells, which every family meets with one strategy.
EVERY_FAMILY = tuple(
    CONTRACT + name
    for name in (
        "test_beams",
        "test_compact_is_masking_under_compact_ids",
        "test_keeping_all_is_bitwise_the_unpatched_model",
        "test_plain_forward",
        "test_text_only_is_bitwise_the_unpatched_model",
        "test_what_tokenprune_models_prints_is_what_the_adapter_answers",
    )
)
#: Slow tests of code that rarely changes: every language model of transformers, families at the sizes of their
#: published checkpoints, block diffusion, names in other releases of transformers, random draws of everything,
#: evaluations of every kind of family, accelerate's launcher, bounds by simulation, two of three ways to compile a
#: whole model, compiled attention, the largest image, the longer notebook, and the scripts that repeat our own
#: measurements and training.
LEFT_OUT = (
    "tests/adapters/published",
    "tests/adapters/test_language_models.py",
    "tests/adapters/test_packages.py",
    "tests/contract/test_denoising.py",
    "tests/demos/test_large.py::test_the_bundled_image",
    "tests/demos/test_notebooks.py::test_it_runs[measure_your_questions]",
    "tests/dev/experiments",
    "tests/dev/measure/test_run.py",
    "tests/dev/test_fuzz.py",
    "tests/dev/train",
    "tests/engine/modes/test_attention.py::test_flex_answers_as_masking",
    "tests/engine/modes/test_compile.py::test_compiled_models[forward",
    "tests/engine/modes/test_compile.py::test_compiled_models[wrapped",
    "tests/engine/modes/test_compile.py::test_what_generate_compiles",
    "tests/engine/refusals/test_renames.py",
    "tests/evals/run/test_resume.py::test_accelerate_launches",
    "tests/evals/test_other_families.py",
    "tests/evals/tune/test_bounds.py",
)
#: Slow tests of which only the first case runs: one thing in many cases.
ONE_CASE = (
    "tests/adapters/layouts/test_tiles.py::test_budgets_are_exact",
    "tests/contract/test_families.py",
    "tests/engine/costs/test_memory.py::test_calls_leave_nothing_behind",
    "tests/engine/modes/test_two_devices.py",
    "tests/evals/bench/test_families.py",
)


def names_tests(arguments: Iterable[str]) -> bool:
    """Return whether arguments of pytest name single tests, or a folder or file of which little or nothing runs."""
    places = tuple(one.partition("::")[0] for one in (*LEFT_OUT, *ONE_CASE))
    return any("::" in argument or argument.startswith(places) for argument in arguments)


def chosen(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the collected tests that belong to the fixed set."""
    from helpers.contract.cells import ANYWHERE, FIRST_CASE, dealt

    met: set[tuple[str, bool]] = set()
    for item in items:
        if item.nodeid.startswith(LEFT_OUT):
            continue
        function = item.nodeid.partition("[")[0]
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        name = parameters.get("name")
        case = parameters.get("case", name)
        family = case if isinstance(case, str) else None
        if function.startswith(CONTRACT) and "case" in parameters and family != FIRST_CASE:
            if function == MASKING:
                if (name, parameters["mode"], parameters["batch"]) in dealt(family):
                    yield item
                continue
            if name not in (ANYWHERE, None):
                continue
        shared = family in _shared() and not function.startswith(EVERY_FAMILY)
        if shared or item.nodeid.startswith(ONE_CASE):
            if (function, shared) in met:
                continue
            met.add((function, shared))
        yield item


@cache
def _shared() -> set[str]:
    """Return the families that share an adapter.

    Imported late, like the cells: otherwise the process that only starts workers would first load transformers' models.
    """
    from helpers.families import FAMILIES
    from helpers.families.common import CommonFamily

    return {name for name, family in FAMILIES.items() if isinstance(family, CommonFamily)}
