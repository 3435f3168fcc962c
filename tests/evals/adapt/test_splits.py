"""The split that an adapter learns from is not the one that it is tested on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.files.evals import sample_image, saved
from helpers.files.search import deep_llava

from tokenprune import DataError
from tokenprune.evals.adapt.adapt import adapt


def test_a_mistake_in_the_split_for_training_is_said(tmp_path: Path) -> None:
    """Otherwise it would learn from the questions that it is tested on."""
    model = saved(deep_llava(), tmp_path / "model")
    sample_image().save(tmp_path / "1.png")
    lines = [
        {"image": image, "question": "12", "answer": "05", "split": split}
        for image, split in (("missing.png", "train"), ("1.png", "test"))
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"line 1: missing image .*missing\.png"):
        adapt(model, data=tmp_path, output=tmp_path / "adapted", steps=1)


def test_other_splits_that_it_learns_from_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(deep_llava(), tmp_path / "model")
    sample_image().save(tmp_path / "1.png")
    line = {"image": "1.png", "question": "12", "answer": "05"}
    lines = [line | {"split": split} for split in ("val", "test")]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    adapt(model, data=tmp_path, output=tmp_path / "adapted", steps=1)
    assert "so this learns from test, val." in " ".join(capsys.readouterr().out.split())
