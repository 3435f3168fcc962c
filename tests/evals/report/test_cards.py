"""The cards of questions about videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from helpers.files.video_sets import mvbench

from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.report import page as pages
from tokenprune.evals.report.regressions import Loss
from tokenprune.evals.storage.answers import Answer
from tokenprune.evals.tasks import TASKS


def answer(strategy: str, score: float) -> Answer:
    return Answer("mvbench", "1", "", strategy, "original", 0.25, "", score)


def test_parts_of_a_video_are_told_apart(tmp_path: Path) -> None:
    """Two questions may be about one file, each about another part of it."""
    mvbench(tmp_path)
    with allowing(frames=2):
        (whole, *_) = (one for one in TASKS["mvbench"].load(tmp_path) if one.category == "moving_count")
    images: dict[pages.Shown, pages.EmbeddedImage] = {}
    parts = [replace(whole, start=start, end=start + 0.5) for start in (0.0, 1.5)]
    lost = Loss(answer("unpruned", 1.0), answer("Grid", 0.0))
    cards = [pages._card(lost, one, images) for one in parts]
    urls = [[panel.image.url for panel in card.panels if panel.image is not None] for card in cards]
    assert [len(own) for own in urls] == [2, 2]
    assert not set(urls[0]) & set(urls[1])
