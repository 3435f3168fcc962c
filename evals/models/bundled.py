"""Paths of the bundled model, images and demos, which are in a clone but not in a wheel."""

from pathlib import Path

_EVALS = Path(__file__).resolve().parents[1]
_BUNDLED = _EVALS / "bundled"

MODEL = _BUNDLED / "model"
SCENES = _BUNDLED / "scenes"
CLIPS = _BUNDLED / "clips"
PHOTOGRAPHS = _BUNDLED / "photographs"
LARGE = _BUNDLED / "large"
SETTINGS = _BUNDLED / "settings"
#: The next model, in `model`, and its sets. What is above is the default until the tables are measured with it.
VERSION_2 = _BUNDLED / "v2"
