"""Paths of the bundled model and its sets of images, which are in a clone but not in a wheel."""

from pathlib import Path

_EVALS = Path(__file__).resolve().parents[1]
BUNDLED = _EVALS / "bundled"

MODEL = BUNDLED / "model"
SCENES = BUNDLED / "scenes"
CLIPS = BUNDLED / "clips"
PHOTOGRAPHS = BUNDLED / "photographs"
LARGE = BUNDLED / "large"
SETTINGS = BUNDLED / "settings"
