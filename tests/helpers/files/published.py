"""Packages with published scorers and prompts, if they are installed, and tiny sets for them."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers.files.tasks import SETS
from tokenprune.evals.reading.hub import table_records
from tokenprune.evals.reading.records import Record
from tokenprune.evals.tasks import TASKS


def lmms(name: str) -> ModuleType:
    """Return a module of lmms-eval's tasks."""
    pytest.importorskip("lmms_eval")
    return importlib.import_module(f"lmms_eval.tasks.{name}")


def vlmevalkit(name: str) -> ModuleType:
    if importlib.util.find_spec("vlmeval") is None:
        pytest.skip("ms-vlmeval is not installed")
    return importlib.import_module(f"vlmeval.{name}")


def loaded_set(folder: Path, name: str) -> Sequence[Any]:
    """Return the questions of a set in the Hub's form."""
    SETS[name, "hub"](folder)
    return TASKS[name].load(folder)


def records(folder: Path, place: str = "*") -> list[Record]:
    """Return the rows of the set's tables, which lmms-eval gets."""
    paths = sorted(folder.glob(f"{place}.parquet")) + sorted(folder.glob(f"{place}/*.parquet"))
    return [record for path in paths for record in table_records(path)]
