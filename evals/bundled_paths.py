"""Where the bundled model and pictures are: in a clone only, no wheel holds them."""

from pathlib import Path

_BUNDLED = Path(__file__).resolve().parent / "bundled"

MODEL = _BUNDLED / "model"
SCENES = _BUNDLED / "scenes"
PHOTOGRAPHS = _BUNDLED / "photographs"
LARGE = _BUNDLED / "large"
SETTINGS = _BUNDLED / "settings"
