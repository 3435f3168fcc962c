"""Models that are not there."""

from pathlib import Path

import pytest

from tokenprune.errors import DataError
from tokenprune.evals.models.loading import load_model


def test_no_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.evals.models.loading.MODEL", tmp_path)
    with pytest.raises(DataError, match="name a model with --model"):
        load_model(str(tmp_path))
