"""Fixtures that several test files share."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers.annotations  # noqa: F401  # isort: skip - before anything imports tokenprune
import fixed_set
import pytest
from helpers.files.wordnet import write_wordnet
from helpers.simulated.flash import flash_on_cpu as flash_on_cpu
from helpers.simulated.quanto import quanto_in_python as quanto_in_python
from helpers.unchecked import unchecked as unchecked


@pytest.fixture(scope="module", autouse=True)
def old_objects_are_not_searched() -> None:
    """Exempt what earlier modules left alive, such as cached models and thousands of tests, from garbage collection,
    which it would make slow."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nltk_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A tiny WordNet for nltk, which reads the variable when it is imported."""
    folder = tmp_path_factory.mktemp("nltk_data")
    write_wordnet(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NLTK_DATA", str(folder))
        yield


@pytest.fixture(scope="session")
def shared_llava() -> Any:
    """One CLIP LLaVA for the whole session; tests that patch it also remove the patch."""
    from helpers.tiny import tiny_llava  # imports all families, which the process that starts workers does not need

    return tiny_llava("clip")


@pytest.fixture
def llava(shared_llava: Any) -> Any:
    """The shared model. Afterwards, checks that the test left none of our hooks on it."""
    yield shared_llava
    for module in shared_llava.modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            assert not getattr(hook, "__module__", "").startswith("tokenprune"), f"{hook} is still there"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix", type=Path, help="write what the contract matrix's cells did to this JSON file")
    parser.addoption("--device", help="where tests put models and tensors that name no device, such as cuda")
    parser.addoption("--all-cells", action="store_true", help="run all tests, not only the fixed set of `make test`")


def pytest_configure(config: pytest.Config) -> None:
    if (device := config.getoption("--device")) is not None:
        import torch

        torch.set_default_device(device)
        torch.backends.cudnn.allow_tf32 = False  # it rounds float32 to eleven bits


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all-cells") or fixed_set.names_tests(config.args):
        return
    kept = list(fixed_set.chosen(items))
    if len(kept) < len(items):
        ids = {item.nodeid for item in kept}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in ids])
        items[:] = kept


#: Family -> cell -> the worst outcome of its tests: failed, cannot (transformers itself), passed.
_cells: dict[str, dict[str, str]] = {}
#: Family -> the largest difference from the oracle in any cell.
_errors: dict[str, float] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    properties = dict(report.user_properties)
    cell = properties.get("cell")
    if not isinstance(cell, list):
        return
    family, label, passes_as = cell
    if report.when == "teardown":
        _errors[family] = max(_errors.get(family, 0.0), float(str(properties.get("error", 0.0))))
    if report.when != "call" or report.outcome == "skipped":
        return
    outcome = passes_as if report.outcome == "passed" else "failed"
    cells = _cells.setdefault(family, {})
    order = ["passed", "cannot", "failed"]
    cells[label] = max(outcome, cells.get(label, "passed"), key=order.index)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--matrix")
    if path is not None and _cells:  # only in the main process of a parallel run
        found = {name: {"cells": _cells[name], "error": _errors.get(name, 0.0)} for name in sorted(_cells)}
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
