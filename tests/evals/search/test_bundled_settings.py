"""The bundled settings files of VFlowOpt, each found by a search of fifty trials on bundled images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenprune.evals.models.bundled import SCENES, SETTINGS
from tokenprune.evals.run.calibration_images import calibrated_on, image_digests
from tokenprune.evals.run.questions import load_questions
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.settings import SettingsFile


@pytest.mark.parametrize("path", sorted(SETTINGS.glob("*.json")), ids=lambda path: path.stem)
def test_evals_recognise_the_images(path: Path) -> None:
    file = SettingsFile.read(path)
    assert isinstance(file.make(), VFlowOpt)
    assert len(file.search["trials"]) == 50
    digests = calibrated_on(file)
    assert len(digests) == 28  # the 30 questions are about 28 images
    assert digests <= set(image_digests(load_questions(SCENES, split="val")).values())
