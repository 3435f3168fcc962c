"""A tiny data set, and questions about its image."""

from pathlib import Path

import pytest
from helpers.asking import echoes
from helpers.files.evals import write_vqav2

from tokenprune.evals.tasks.base.question import Question


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_vqav2(tmp_path)
    return tmp_path


@pytest.fixture
def questions(folder: Path) -> list[Question]:
    return echoes(folder)
