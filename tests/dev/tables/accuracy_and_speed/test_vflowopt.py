"""The tables on VFlowOpt, and their settings files."""

from __future__ import annotations

import pytest
from helpers.files.rows import row

from tokenprune.evals.dev.tables.accuracy_and_speed import vflowopt
from tokenprune.evals.models.bundled import SCENES
from tokenprune.evals.run.calibration_images import calibrated_on, image_digests
from tokenprune.evals.run.questions import load_questions
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.settings import SettingsFile


def test_tables() -> None:
    rows = [
        row("unpruned", "original", 1.0, {"val": [1.0, 1.0, 1.0, 0.0]}, kv_cache_bytes=1100),
        row("Random", "original", 0.5, {"val": [0.0, 0.0, 0.0, 1.0]}, kv_cache_bytes=600),
        row("Random", "original", 0.25, {"val": [0.0, 0.0, 0.0, 1.0]}, kv_cache_bytes=350),
        row("VFlowOpt", "original", 0.25, {"val": [0.0, 1.0, 1.0, 1.0]}, kv_cache_bytes=400),
        row("VFlowOpt searched_25", "original", 0.25, {"val": [1.0, 1.0, 1.0, 1.0]}, kv_cache_bytes=300),
    ]
    tables = vflowopt.report(rows, [], [])
    assert "| 25% | Random | +75.0 [14.8, 100.0] |" in tables
    assert "| no calibration: default settings | 75.0 | -25.0 [-80.6, 35.2] |" in tables
    assert "| 25% | VFlowOpt searched_25 | 200 | 80.0% |" in tables  # 10 bytes a visual token, 100 of text
    assert "TTFT" not in tables  # nothing was timed


@pytest.mark.parametrize("file", vflowopt.settings_files(), ids=lambda file: file.path.stem)
def test_found_settings(file: SettingsFile) -> None:
    """Each search ran fifty trials on bundled images, which evals recognise."""
    assert isinstance(file.make(), VFlowOpt)
    assert len(file.search["trials"]) == 50
    digests = calibrated_on(file)
    assert len(digests) == 28  # the 30 questions are about 28 images
    assert digests <= set(image_digests(load_questions(SCENES, split="val")).values())
