"""Wrong arguments of a training are reported before the weights load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import saved, write_vqav2
from helpers.files.search import deep_llava

from tokenprune import SettingError
from tokenprune.evals.adapt.adapt import adapt


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "decodr"}, "Did you mean 'decoder'"),
        ({"save_every": 0}, "save_every=0 is not a whole number above 0"),
        ({"steps": 2.5}, r"steps=2\.5 is not a whole number"),
        ({"limit": 0}, "limit=0 is not a whole number above 0"),
        ({"tasks": "vqa"}, "tasks: found 'vqa', which is not a list; write tasks="),
        ({"image_roots": "/data"}, "image_roots: found '/data', which is not a list"),
        ({"model": ("a loaded model", "its processor")}, "adapt loads the model itself, because training changes it"),
        ({"output": Path(__file__)}, "test_arguments.py: cannot be a folder, because it is a file. Name another --out"),
    ],
)
def test_mistakes_are_said(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(deep_llava(), tmp_path / "model")
    write_vqav2(tmp_path / "vqa", 2)
    monkeypatch.setattr("tokenprune.evals.adapt.adapt.load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(SettingError, match=message):
        adapt(**{"model": model, "data": tmp_path, "output": tmp_path / "out", **options})
