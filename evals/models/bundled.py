"""Where the bundled model, images and demos are: in a clone only, no wheel holds them."""

from pathlib import Path

_EVALS = Path(__file__).resolve().parents[1]
_BUNDLED = _EVALS / "bundled"

MODEL = _BUNDLED / "model"
SCENES = _BUNDLED / "scenes"
PHOTOGRAPHS = _BUNDLED / "photographs"
LARGE = _BUNDLED / "large"
SETTINGS = _BUNDLED / "settings"
DEMOS = _EVALS.parent / "demos"
