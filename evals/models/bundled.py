"""Paths of the bundled model and its sets of images, which are in a clone but not in a wheel."""

from pathlib import Path

_EVALS = Path(__file__).resolve().parents[1]
BUNDLED = _EVALS / "bundled"

MODEL = BUNDLED / "model"
#: For FoPru with `score=cls,layer=-2,cells=auto` at 0.1 to 0.3 of the visual tokens.
ADAPTER = BUNDLED / "adapter"
SCENES = BUNDLED / "scenes"
CLIPS = BUNDLED / "clips"
PHOTOGRAPHS = BUNDLED / "photographs"
LARGE = BUNDLED / "large"
SETTINGS = BUNDLED / "settings"
